// ends: completed 1
return await Promise.race([tools.svc.m(1), new Promise(() => {})]);
