// ends: cpu
const text = '%41'.repeat(1e6);
for (;;) { try { decodeURIComponent(text); } catch {} }
