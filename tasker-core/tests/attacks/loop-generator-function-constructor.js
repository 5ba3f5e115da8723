// ends: cpu
const Generator = (function* () {}).constructor;
for (;;) { try { Generator('for (;;);')().next(); } catch {} }
