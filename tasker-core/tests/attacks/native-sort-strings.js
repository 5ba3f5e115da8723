// ends: cpu
const a = Array.from({ length: 200 }, (_, n) => 'x'.repeat(100000) + n);
for (;;) { try { a.toSorted(); } catch {} }
