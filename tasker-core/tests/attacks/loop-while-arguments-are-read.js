// ends: cpu
for (;;) { try { await tools.svc.m({ get x() { for (;;); } }); } catch {} }
