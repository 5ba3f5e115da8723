// ends: cpu
for (;;) { try { const [first] = { [Symbol.iterator]() { return { next() { for (;;); } }; } }; } catch {} }
