// ends: memory
await Promise.any({ *[Symbol.iterator]() { for (;;) yield Promise.reject(1); } });
