// ends: stack
const f = async () => { await f(); };
await f();
