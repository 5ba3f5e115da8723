// ends: completed [9,null,null]
const list = [1, 2, 3];
Object.defineProperty(list, 0, { get() { list.length = 1; return 9; } });
return await tools.svc.m(list);
