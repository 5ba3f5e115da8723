// ends: completed "ok"
try {
const b = new ArrayBuffer(64, { maxByteLength: 64 }), v = new DataView(b, 32);
v.setFloat64({ valueOf() { b.resize(33); return 8; } }, 1);
} catch {}
return 'ok';
