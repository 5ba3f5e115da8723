// ends: error LimitExceeded payload
await tools.svc.m(new Proxy([], { get: (t, k) => (k === 'length' ? 2 ** 53 - 1 : 1) }));
