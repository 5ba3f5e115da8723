// ends: cpu
const a = new Uint32Array(4e6);
for (;;) { try { a.reverse(); } catch {} }
