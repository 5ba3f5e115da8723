// ends: cpu
for (;;) { try { ((s) => { for (;;); })`x`; } catch {} }
