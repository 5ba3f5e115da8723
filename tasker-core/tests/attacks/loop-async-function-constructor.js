// ends: cpu
const AsyncFunction = (async () => {}).constructor;
for (;;) AsyncFunction('for (;;);')();
