// ends: cpu
const a = 7n ** 300000n, b = 3n ** 200000n;
for (;;) a / b;
