// ends: completed "ok"
try {
const r = /./g;
r.lastIndex = { valueOf() { r.compile('x{0,3}'); return 1e9; } };
r.exec('xxxx');
} catch {}
return 'ok';
