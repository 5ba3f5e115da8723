// ends: memory
Math.max(...{ *[Symbol.iterator]() { for (;;) yield 1; } });
