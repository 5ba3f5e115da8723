// ends: completed "ok"
try {
const a = [1, 2, 3];
Object.defineProperty(a, 'length', { get value() { a.push(1); return 1; } });
} catch {}
return 'ok';
