// ends: cpu
for (;;) { const c = new AbortController(); c.signal.addEventListener('abort', () => { for (;;); }); try { c.abort(); } catch {} }
