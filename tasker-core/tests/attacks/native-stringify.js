// ends: cpu
const a = new Array(200000).fill(1.5);
for (;;) { try { JSON.stringify(a); } catch {} }
