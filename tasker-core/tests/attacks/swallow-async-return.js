// ends: memory
for (;;) {
  const g = (async function* () { try { yield 1; } finally { for (;;); } })();
  g.next(); g.return().catch(() => {});
}
