// ends: completed "ok"
try {
const b = new ArrayBuffer(64), t = new Uint8Array(b);
t.fill({ valueOf() { b.transfer(0); return 1; } });
} catch {}
return 'ok';
