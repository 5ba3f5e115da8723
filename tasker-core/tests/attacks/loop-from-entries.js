// ends: cpu
Object.fromEntries({ *[Symbol.iterator]() { for (;;) yield ['a', 1]; } });
