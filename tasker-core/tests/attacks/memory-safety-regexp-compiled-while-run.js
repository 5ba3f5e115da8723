// ends: completed "ok"
try {
const r = /(a+)(b)?/y;
'aab'.replace(r, () => { r.compile('(', 'g'); return ''; });
} catch {}
return 'ok';
