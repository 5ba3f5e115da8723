// ends: memory
const kept = [], fill = () => { for (;;) kept.push(new Uint8Array(50000)); };
const g = (async function* () { fill(); yield 1; })();
await g.next().catch(() => {});
kept.length = 0;
return 'survived';
