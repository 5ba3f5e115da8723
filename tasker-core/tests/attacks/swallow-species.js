// ends: cpu
class A extends Array { static get [Symbol.species]() { for (;;); } }
for (;;) { try { new A(1, 2).map((x) => x); } catch {} }
