// ends: error LimitExceeded payload
await tools.svc.m('x'.repeat(5e6));
