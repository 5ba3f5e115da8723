// ends: cpu
async function* endless() { for (;;) { try { yield 1; } finally { for (;;); } } }
const it = endless();
await it.next();
await it.return(1).catch(() => {});
return 'survived';
