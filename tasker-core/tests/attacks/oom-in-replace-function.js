// ends: memory
const kept = [], fill = () => { for (;;) kept.push(new Uint8Array(50000)); };
try { 'abc'.replace(/b/, fill); } catch {}
kept.length = 0;
return 'survived';
