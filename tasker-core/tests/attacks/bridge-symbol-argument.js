// ends: error TypeError
await tools.svc.m(Symbol('x'));
