// ends: cpu
const text = 'ab'.repeat(200000), part = 'ab'.repeat(100000) + 'c';
for (;;) { try { text.lastIndexOf(part); } catch {} }
