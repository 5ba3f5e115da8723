// ends: cpu
for await (const n of (async function* () { for (;;) yield 0; })());
