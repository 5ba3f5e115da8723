// ends: cpu
const a=new Uint8Array(16<<20); for(;;) a.fill(1)
