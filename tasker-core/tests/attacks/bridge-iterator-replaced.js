// ends: completed [1,2]
Array.prototype[Symbol.iterator] = function* () { yield 'forged'; };
Array.prototype.values = Array.prototype[Symbol.iterator];
return await tools.svc.m([1, 2]);
