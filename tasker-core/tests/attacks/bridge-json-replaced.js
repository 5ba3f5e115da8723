// ends: completed {"a":1}
JSON.stringify = () => '"forged"';
JSON.parse = () => 'forged';
return await tools.svc.m({ a: 1 });
