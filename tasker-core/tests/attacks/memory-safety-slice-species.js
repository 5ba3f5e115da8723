// ends: completed "ok"
try {
class U extends Uint8Array { static get [Symbol.species]() { return Uint8Array.bind(null, 1); } }
new U(100).slice(0, 100);
} catch {}
return 'ok';
