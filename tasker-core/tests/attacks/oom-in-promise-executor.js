// ends: memory
const kept = [], fill = () => { for (;;) kept.push(new Uint8Array(50000)); };
await new Promise(() => fill()).catch(() => {});
kept.length = 0;
return 'survived';
