// ends: memory
const kept = [], fill = () => { for (;;) kept.push(new Uint8Array(50000)); };
try { for (const x of { [Symbol.iterator]: () => ({ next: () => ({ done: false }), return: fill }) }) break; } catch {}
kept.length = 0;
return 'survived';
