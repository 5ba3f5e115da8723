// ends: memory
const [...rest] = { *[Symbol.iterator]() { for (;;) yield {}; } };
