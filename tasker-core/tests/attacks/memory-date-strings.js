// ends: memory
const kept = [];
for (let n = 0; ; n++) kept.push(new Date(n).toISOString());
