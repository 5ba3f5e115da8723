// ends: stack
const p = new Proxy({}, { has(t, k) { return k in p; } });
return 'x' in p;
