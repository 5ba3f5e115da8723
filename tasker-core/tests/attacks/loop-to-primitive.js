// ends: cpu
for (;;) { try { +{ [Symbol.toPrimitive]() { for (;;); } }; } catch {} }
