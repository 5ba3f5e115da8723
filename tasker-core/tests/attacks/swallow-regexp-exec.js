// ends: cpu
const r = /a/g; r.exec = () => { for (;;); };
for (;;) { try { 'aaa'.replace(r, 'b'); } catch {} }
