// ends: cpu
globalThis.__result=(async()=>{ try { await (async()=>{ await 0; for(;;){} })() } catch(e) { return 'swallowed '+e } })(); 0
