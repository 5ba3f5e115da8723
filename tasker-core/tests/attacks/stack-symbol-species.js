// ends: stack
class A extends Array { static get [Symbol.species]() { new A(1).map((x) => x); } }
return new A(1).map((x) => x);
