// ends: cpu
for (;;) (1e21 + Math.random()).toFixed(50);
