// ends: memory
const kept = [await tools.svc.m('x')];
for (;;) kept.push(new Array(1000).fill(kept.length));
