// ends: cpu
for (;;) { try { JSON.parse('[1]', () => { for (;;); }); } catch {} }
