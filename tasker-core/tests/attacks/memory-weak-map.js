// ends: memory
const w = new WeakMap(), kept = [];
for (;;) { const o = {}; w.set(o, { o }); kept.push(o); }
