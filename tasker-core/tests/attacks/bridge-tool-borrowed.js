// ends: completed [1,2,3]
const m = tools.svc.m;
return [await m(1), await m.call(null, 2), await m.apply({}, [3])];
