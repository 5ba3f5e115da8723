// ends: cpu
for (;;) { try { [2, 1].toSorted(() => { for (;;); }); } catch {} }
