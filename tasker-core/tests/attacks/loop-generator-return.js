// ends: cpu
for (;;) {
  const g = (function* () { try { yield 1; } finally { for (;;); } })();
  g.next();
  try { g.return(); } catch {}
}
