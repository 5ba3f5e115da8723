// ends: cpu
function* count() { let n = 0; for (;;) yield n++; }
for (const n of count());
