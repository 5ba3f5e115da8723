// ends: memory
const kept = [];
for (;;) { try { null.x; } catch (e) { kept.push(e); } }
