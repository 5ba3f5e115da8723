// ends: completed 5
Promise.prototype.then = function () { return 'forged'; };
Promise.prototype.catch = Promise.prototype.finally = undefined;
return await tools.svc.m(5);
