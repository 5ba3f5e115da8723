// ends: cpu
const text = Array.from({ length: 60000 }, (_, n) => 'var name' + n).join(';');
for (;;) { try { new Function(text); } catch {} }
