// ends: completed "ok"
try {
const b = new ArrayBuffer(64, { maxByteLength: 64 }), t = new Uint8Array(b, 8);
b.resize(4);
t.subarray(0, 8);
t.at(-1);
t.with(0, 1);
} catch {}
return 'ok';
