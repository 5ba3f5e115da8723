// ends: completed {"value":1}
for (const word of ['get', 'set', 'enumerable', 'writable', 'configurable']) Object.defineProperty(Object.prototype, word, { __proto__: null, value: () => 'forged', configurable: true });
return await tools.svc.m({ value: 1 });
