// ends: completed "ok"
try {
const g = (function* () { yield* { [Symbol.iterator]: () => ({ next: () => g.next() }) }; })();
g.next();
} catch {}
return 'ok';
