// ends: completed {"a":7,"b":7}
return new Proxy({}, {
    ownKeys: () => ['a', 'b'],
    getOwnPropertyDescriptor: () => ({ value: 1, enumerable: true, configurable: true }),
    get: (target, key) => (key === 'a' || key === 'b' ? 7 : undefined),
});
