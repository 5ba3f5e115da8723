// ends: completed [1,"undefined"]
Object.defineProperty(Object.prototype, 'v', { set(x) { globalThis.stolen = x; }, get() { return 'forged'; }, configurable: true });
const answer = await tools.svc.m({ v: 1 });
return [answer.v, typeof stolen];
