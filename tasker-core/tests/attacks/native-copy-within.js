// ends: cpu
const a = new Float64Array(2e6);
for (;;) { try { a.copyWithin(1, 0); } catch {} }
