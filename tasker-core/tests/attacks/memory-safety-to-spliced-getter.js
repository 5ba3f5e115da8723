// ends: completed "ok"
try {
const a = [1, 2, 3];
Object.defineProperty(a, 1, { get() { a.length = 0; return 1; } });
a.toSpliced(0, 1, 2);
} catch {}
return 'ok';
