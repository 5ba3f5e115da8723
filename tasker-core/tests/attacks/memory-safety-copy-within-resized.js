// ends: completed "ok"
try {
const b = new ArrayBuffer(64, { maxByteLength: 128 }), t = new Uint8Array(b);
t.copyWithin({ valueOf() { b.resize(1); return 0; } }, 8, 60);
} catch {}
return 'ok';
