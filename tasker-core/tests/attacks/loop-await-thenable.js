// ends: cpu
for (;;) await { then(resolve) { resolve(); } };
