// ends: memory
const s = new Set();
for (let n = 0; ; n++) s.add(`entry ${n}`);
