// ends: cpu
for (;;) Promise.allSettled([{ get then() { for (;;); } }]);
