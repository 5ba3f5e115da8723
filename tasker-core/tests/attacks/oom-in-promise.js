// ends: memory
globalThis.__result=(async()=>{ const k=[]; for(;;){ k.push(new Uint8Array(1000)); } })(); 0
