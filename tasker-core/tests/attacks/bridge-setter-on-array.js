// ends: completed [[7,8],"undefined"]
Object.defineProperty(Array.prototype, '0', { set(x) { globalThis.stolen = x; }, get() { return 'forged'; }, configurable: true });
const answer = await tools.svc.m([7, 8]);
return [answer, typeof stolen];
