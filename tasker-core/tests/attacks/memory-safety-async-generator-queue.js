// ends: error NeverSettlesError
try {
const g = (async function* () { try { yield 1; yield 2; } finally { yield 3; } })();
g.next(); g.throw(1).catch(() => {}); g.return(2); g.next();
await g.next();
} catch {}
return 'ok';
