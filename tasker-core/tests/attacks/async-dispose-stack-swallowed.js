// ends: cpu
const stack = new AsyncDisposableStack();
for (let n = 0; n < 10; n++) stack.defer(async () => { for (;;); });
await stack.disposeAsync().catch(() => {});
return 'survived';
