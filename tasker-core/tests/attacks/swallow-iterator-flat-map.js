// ends: cpu
for (;;) { try { [1].values().flatMap(() => { for (;;); }).next(); } catch {} }
