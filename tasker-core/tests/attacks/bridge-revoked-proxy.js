// ends: error TypeError
const { proxy, revoke } = Proxy.revocable({}, {});
revoke();
await tools.svc.m(proxy);
