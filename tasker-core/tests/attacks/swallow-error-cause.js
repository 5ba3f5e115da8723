// ends: cpu
for (;;) { try { new Error('x', { get cause() { for (;;); } }); } catch {} }
