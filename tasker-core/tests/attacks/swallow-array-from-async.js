// ends: cpu
for (;;) { try { await Array.fromAsync({ length: 3, get 0() { for (;;); } }); } catch {} }
