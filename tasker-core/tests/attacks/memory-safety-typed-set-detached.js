// ends: completed "ok"
try {
const b = new ArrayBuffer(64), t = new Uint8Array(b);
t.set({ length: 8, get 0() { b.transfer(); return 1; } });
} catch {}
return 'ok';
