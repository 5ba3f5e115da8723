// ends: completed [1,"no thenable"]
const answer = await tools.svc.m({ then: 1 });
return [answer.then, 'no thenable'];
