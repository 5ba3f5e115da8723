// ends: error LimitExceeded json_depth
const deeper = () => new Proxy({}, { ownKeys: () => ['a'], getOwnPropertyDescriptor: () => ({ enumerable: true, configurable: true, value: 1 }), get: (t, k) => (k === 'toJSON' ? undefined : deeper()) });
await tools.svc.m(deeper());
