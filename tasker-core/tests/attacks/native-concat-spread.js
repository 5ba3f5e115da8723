// ends: cpu
const a = new Array(100000).fill(1);
for (;;) { try { [...a, ...a]; } catch {} }
