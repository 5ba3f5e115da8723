// ends: cpu
Object.defineProperty(Object.prototype, 'then', { configurable: true, get() { for (;;); } });
try { await tools.svc.m({ a: 1 }); } catch {}
return 'survived';
