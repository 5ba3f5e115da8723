// ends: completed true
return (await tools.svc.m('\ud800')) === '\ud800';
