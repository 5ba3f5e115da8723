// ends: cpu
for (;;) { try { new AggregateError({ *[Symbol.iterator]() { for (;;); } }); } catch {} }
