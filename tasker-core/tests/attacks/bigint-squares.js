// ends: error RangeError
let a = 2n ** 20000n;
for (let n = 0; n < 10; n++) a *= a;
return String(a).length;
