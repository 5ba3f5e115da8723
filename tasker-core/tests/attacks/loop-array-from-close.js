// ends: cpu
for (;;) { try { Array.from({ [Symbol.iterator]: () => ({ next: () => ({ done: false }), return() { for (;;); } }) }, () => { throw 1; }); } catch {} }
