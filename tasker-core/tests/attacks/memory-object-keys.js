// ends: memory
const o = {};
for (let n = 0; ; n++) o['a long enough name of a property ' + n] = n;
