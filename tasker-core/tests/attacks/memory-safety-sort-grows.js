// ends: completed "number"
const numbers = Array.from({ length: 1000 }, (_, i) => (i * 7919) % 1000);
numbers.sort((a, b) => { numbers.push(1); numbers.shift(); return a - b; });
return typeof numbers.length;
