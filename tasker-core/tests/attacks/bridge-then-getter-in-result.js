// ends: completed {"a":1}
let asked = 0;
return { a: 1, get then() { asked++; return asked > 100 ? () => {} : undefined; } };
