// ends: cpu
for (;;) { try { (0, eval)('for (;;);'); } catch {} }
