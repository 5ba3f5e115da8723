// ends: memory
for (let n = 0; n < 1e6; n++) queueMicrotask(() => { for (;;); });
return await new Promise(() => {});
