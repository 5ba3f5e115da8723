// ends: memory
Array.prototype[Symbol.iterator] = function* () { for (;;) yield 0; };
const [...all] = [1];
