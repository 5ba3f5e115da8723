// ends: completed "ok"
try {
let depth = 0;
const f = (s) => s.replace(/./g, (c) => (++depth < 500 ? f(c + c) : c));
f('ab');
} catch {}
return 'ok';
