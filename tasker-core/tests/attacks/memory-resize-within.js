// ends: memory
const b = new ArrayBuffer(8, { maxByteLength: 2 ** 30 });
try { b.resize(2 ** 30); } catch {}
return 'survived';
