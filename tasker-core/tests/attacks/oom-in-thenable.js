// ends: memory
const kept = [], fill = () => { for (;;) kept.push(new Uint8Array(50000)); };
await Promise.resolve({ then: fill }).catch(() => {});
kept.length = 0;
return 'survived';
