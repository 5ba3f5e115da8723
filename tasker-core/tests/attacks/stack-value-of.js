// ends: stack
const o = { valueOf() { return +o; } };
return +o;
