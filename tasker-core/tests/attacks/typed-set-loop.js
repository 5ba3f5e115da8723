// ends: cpu
const a=new Uint8Array(14<<20); for(;;) a.copyWithin(1,0)
