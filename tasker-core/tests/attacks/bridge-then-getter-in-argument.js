// ends: cpu
try { await tools.svc.m({ get then() { for (;;); } }); } catch {}
return 'survived';
