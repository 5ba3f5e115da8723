// ends: error TypeError
let me;
me = Promise.resolve().then(() => me);
await me;
