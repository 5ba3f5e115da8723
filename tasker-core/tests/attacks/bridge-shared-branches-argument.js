// ends: error LimitExceeded payload
let tree = [1];
for (let n = 0; n < 40; n++) tree = [tree, tree];
return await tools.svc.m(tree);
