// ends: cpu
setTimeout(() => { for (;;) { try { for (;;); } catch {} } }, 1);
await tools.sleep(50);
return 'slept';
