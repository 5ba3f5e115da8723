// ends: error LimitExceeded run_calls
// Each child makes a few calls and another child.
for (let n = 0; n < 300; n++) await tools.svc.m(n);
return await tools.tasks.execute('attack');
