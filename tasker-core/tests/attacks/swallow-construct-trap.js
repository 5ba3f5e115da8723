// ends: cpu
const P = new Proxy(class {}, { construct() { for (;;); } });
for (;;) { try { new P(); } catch {} }
