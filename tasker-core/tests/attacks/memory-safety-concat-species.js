// ends: completed "ok"
try {
class A extends Array { static get [Symbol.species]() { return function () { return target; }; } }
const target = new A();
new A(1, 2, 3).concat([4]);
} catch {}
return 'ok';
