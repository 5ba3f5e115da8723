// ends: cpu
for (;;) { try { structuredClone({ get a() { for (;;); } }); } catch {} }
