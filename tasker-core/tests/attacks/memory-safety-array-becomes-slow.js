// ends: completed "ok"
try {
const a = [1, 2, 3];
a.map((x, n) => { a[1e6] = n; delete a[0]; return a.shift(); });
} catch {}
return 'ok';
