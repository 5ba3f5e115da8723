// ends: cpu
for (;;) { try { const [x] = { [Symbol.iterator]: () => ({ next: () => ({ done: false }), return() { for (;;); } }) }; } catch {} }
