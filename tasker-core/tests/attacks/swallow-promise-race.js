// ends: cpu
for (;;) Promise.race([new Proxy({}, { get() { for (;;); } })]).catch(() => {});
