// ends: error TypeError
return { get a() { throw new TypeError('mine'); } };
