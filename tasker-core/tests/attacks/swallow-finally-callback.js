// ends: cpu
Promise.resolve().finally(() => { for (;;); }).catch(() => {});
await new Promise((go) => setTimeout(go, 1));
return 'swallowed';
