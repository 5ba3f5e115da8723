// ends: completed [{"__proto__":{"x":1},"a":2},true]
const answer = await tools.svc.m(JSON.parse('{"__proto__":{"x":1},"a":2}'));
return [answer, answer.x === undefined && ({}).x === undefined];
