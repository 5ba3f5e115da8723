// ends: cpu
const f = (a = (() => { for (;;); })()) => a;
for (;;) { try { f(); } catch {} }
