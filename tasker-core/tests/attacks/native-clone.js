// ends: cpu
const data = { list: new Array(50000).fill({ a: 1 }) };
for (;;) { try { structuredClone(data); } catch {} }
