// ends: error RangeError
const b = new ArrayBuffer(8, { maxByteLength: 2 ** 31 });
try { b.resize(2 ** 31 - 8); } catch {}
return 'survived';
