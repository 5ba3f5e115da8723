// ends: completed "ok"
try {
const b = new ArrayBuffer(16, { maxByteLength: 64 });
Uint8Array.from({ length: 10, get 0() { b.resize(0); return 1; } }, (x) => x);
new Uint16Array(b, 0).set([1, 2, 3]);
} catch {}
return 'ok';
