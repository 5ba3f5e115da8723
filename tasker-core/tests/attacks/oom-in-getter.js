// ends: memory
const kept = [], fill = () => { for (;;) kept.push(new Uint8Array(50000)); };
try { ({ get a() { fill(); } }).a; } catch {}
kept.length = 0;
return 'survived';
