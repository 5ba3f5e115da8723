// ends: cpu
for (;;) { try { JSON.stringify([1], () => { for (;;); }); } catch {} }
