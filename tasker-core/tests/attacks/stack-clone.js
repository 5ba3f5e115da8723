// ends: stack
let o = {};
for (let n = 0; n < 20000; n++) o = { o };
return structuredClone(o) === o;
