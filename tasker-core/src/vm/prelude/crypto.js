// Randomness from the frame's recorded seed.
const hex = '0123456789abcdef';
const isOfIntegers = (brand) => {
  switch (brand) {
    case 'Uint8Array': case 'Int8Array': case 'Uint8ClampedArray': case 'Uint16Array': case 'Int16Array':
    case 'Uint32Array': case 'Int32Array': case 'BigInt64Array': case 'BigUint64Array': return true;
    default: return false;
  }
};
return {
  getRandomValues(view) {
    if (!isOfIntegers(host_brand(view))) throw domException('getRandomValues takes a typed array of integers', 'TypeMismatchError');
    if (view.byteLength > 65536) throw domException('getRandomValues gives at most 65,536 bytes at a time', 'QuotaExceededError');
    host_random_bytes(view);
    return view;
  },
  randomUUID() {
    const bytes = new RealUint8Array(16);
    host_random_bytes(bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = '';
    for (let i = 0; i < 16; i++) text += (i === 4 || i === 6 || i === 8 || i === 10 ? '-' : '') + hex[bytes[i] >> 4] + hex[bytes[i] & 15];
    return text;
  },
};
