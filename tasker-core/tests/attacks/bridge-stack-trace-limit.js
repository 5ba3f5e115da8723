// ends: completed "done"
Error.stackTraceLimit = Infinity;
const f = (n) => (n ? f(n - 1) : new Error('x').stack.length);
f(500);
return 'done';
