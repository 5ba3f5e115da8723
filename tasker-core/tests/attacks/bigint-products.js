// ends: cpu
const a = 3n ** 200000n;
for (;;) a * a;
