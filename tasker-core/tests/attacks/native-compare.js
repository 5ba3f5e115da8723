// ends: cpu
const text = '\u1e9b\u0323'.repeat(100000);
for (;;) { try { text.localeCompare(text + 'x'); } catch {} }
