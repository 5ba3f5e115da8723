// ends: memory
let f = () => 1;
try { for (;;) f = f.bind(null, f); } catch (e) { return String(e); }
