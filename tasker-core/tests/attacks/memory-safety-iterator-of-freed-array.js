// ends: completed "ok"
try {
let a = [1, 2, 3];
for (const x of a) { a.length = 0; a = null; break; }
const it = [1].values();
it.next(); it.next(); it.next();
} catch {}
return 'ok';
