// ends: completed undefined
class A extends Array { static get [Symbol.species](){ return function(n){ return new Uint8Array(1) } } } const a=A.from([1,2,3]); try { a.map(x=>x) } catch(e) { String(e) }
