// ends: memory
const kept = [];
for (;;) kept.push(Symbol('s'.repeat(1000) + kept.length));
