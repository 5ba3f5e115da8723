// ends: completed 6
Object.defineProperty(Promise, Symbol.species, { get() { throw new Error('species'); } });
return await tools.svc.m(6);
