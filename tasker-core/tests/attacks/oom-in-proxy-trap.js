// ends: memory
const kept = [], fill = () => { for (;;) kept.push(new Uint8Array(50000)); };
try { new Proxy({}, { get: fill }).x; } catch {}
kept.length = 0;
return 'survived';
