// ends: cpu
for (;;) { try { 'a'.replace(/a/, () => { for (;;); }); } catch {} }
