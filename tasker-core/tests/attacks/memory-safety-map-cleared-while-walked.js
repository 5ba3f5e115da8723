// ends: completed "ok"
try {
const m = new Map(Array.from({ length: 100 }, (_, n) => [n, n]));
m.forEach((v, k) => { m.clear(); for (let n = 0; n < 3 && k < 50; n++) m.set(k * 2 + n + 1, n); });
} catch {}
return 'ok';
