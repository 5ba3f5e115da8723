// ends: memory
const part = 'x'.repeat(1e6);
for (;;) tools.svc.m(part).catch(() => {});
