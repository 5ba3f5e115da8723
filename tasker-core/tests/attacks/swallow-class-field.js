// ends: cpu
class F { x = (() => { for (;;); })(); }
for (;;) { try { new F(); } catch {} }
