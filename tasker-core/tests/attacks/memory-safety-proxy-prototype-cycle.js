// ends: cpu
try {
const p = new Proxy({}, { getPrototypeOf: () => p });
Object.setPrototypeOf({}, p);
p instanceof Object;
} catch {}
return 'ok';
