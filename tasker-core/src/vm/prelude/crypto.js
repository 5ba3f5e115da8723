// Randomness from the frame's recorded seed.
{
  const hex = '0123456789abcdef';
  const integerArrays = new RealSet(['Uint8Array', 'Int8Array', 'Uint8ClampedArray', 'Uint16Array', 'Int16Array', 'Uint32Array', 'Int32Array', 'BigInt64Array', 'BigUint64Array']);
  hide(Math, 'random', function random() { return host_random(); });
  publish('crypto', {
    getRandomValues(view) {
      if (!setHas(integerArrays, host_brand(view))) throw domException('getRandomValues takes a typed array of integers', 'TypeMismatchError');
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
  });
}
