// ends: cpu
for (;;) { try { class Endless { static { for (;;); } } } catch {} }
