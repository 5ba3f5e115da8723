// ends: cpu
await tools.svc.m(1);
for (;;) { try { for (;;); } catch {} }
