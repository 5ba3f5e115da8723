// ends: cpu
const text = 'a'.repeat(400000), part = 'a'.repeat(200000) + 'b';
for (;;) { try { text.indexOf(part); } catch {} }
