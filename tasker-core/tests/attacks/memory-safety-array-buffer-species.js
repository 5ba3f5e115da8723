// ends: completed "ok"
try {
class B extends ArrayBuffer { static get [Symbol.species]() { return function () { return big; }; } }
const big = new B(8);
new B(64).slice(0, 64);
} catch {}
return 'ok';
