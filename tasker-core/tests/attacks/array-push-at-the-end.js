// ends: completed "RangeError"
const full = [];
full.length = 2 ** 32 - 1;
try { full.push(1); } catch (error) { return error.name; }
return 'survived';
