// ends: stack
const o = { toString() { return `${o}`; } };
return String(o);
