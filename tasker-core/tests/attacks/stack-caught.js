// ends: completed "RangeError"
let depth = 0;
const f = () => { depth++; f(); };
try { f(); } catch (e) { return e.name; }
