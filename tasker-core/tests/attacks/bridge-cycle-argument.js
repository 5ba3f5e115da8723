// ends: error TypeError
const o = {};
o.o = o;
await tools.svc.m(o);
