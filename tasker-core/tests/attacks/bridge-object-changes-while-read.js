// ends: completed {"a":1,"c":3}
const o = { get a() { delete this.b; this.d = 4; return 1; }, b: 2, c: 3 };
return await tools.svc.m(o);
