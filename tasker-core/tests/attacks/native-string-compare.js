// ends: memory
const a = 'x'.repeat(5e6), b = 'x'.repeat(5e6);
let n = 0;
for (;;) if ((a + n).localeCompare(b + n)) n++;
