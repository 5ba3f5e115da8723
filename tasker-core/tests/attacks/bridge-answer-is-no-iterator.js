// ends: error TypeError
Object.prototype[Symbol.asyncIterator] = undefined;
for await (const item of tools.svc.m([1, 2])) return item;
