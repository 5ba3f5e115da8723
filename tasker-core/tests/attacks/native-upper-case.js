// ends: cpu
const text = '\u00df'.repeat(1e6);
for (;;) { try { text.toUpperCase(); } catch {} }
