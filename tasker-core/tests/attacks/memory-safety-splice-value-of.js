// ends: completed "ok"
try {
const a = [1, 2, 3, 4];
a.splice({ valueOf() { a.length = 0; return 1; } }, { valueOf() { a.push(1); return 9; } });
} catch {}
return 'ok';
