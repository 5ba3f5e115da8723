// ends: cpu
const a = new Float64Array(2e6);
for (;;) { try { a.includes(7); } catch {} }
