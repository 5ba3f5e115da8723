// ends: memory
let tree = [1];
for (let n = 0; n < 40; n++) tree = [tree, tree];
try { JSON.stringify(tree); } catch {}
return 'survived';
