// ends: completed "mine"
Object.prototype.toJSON = () => 'mine';
return await tools.svc.m({ secret: 1 });
