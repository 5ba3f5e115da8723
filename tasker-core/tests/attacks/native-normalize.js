// ends: cpu
const text = '\u0344\u0301'.repeat(200000);
for (;;) { try { text.normalize('NFD'); } catch {} }
