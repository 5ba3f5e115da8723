// ends: error TypeError
await tools.svc.m(new Proxy({}, { ownKeys() { return ['a', 'a']; } }));
