// ends: completed "ok"
try {
const it = [1, 2, 3].values().map((x) => { it.return(); return x; });
it.next(); it.next();
} catch {}
return 'ok';
