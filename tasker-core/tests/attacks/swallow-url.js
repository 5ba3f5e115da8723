// ends: cpu
for (;;) { try { new URL({ toString() { for (;;); } }); } catch {} }
