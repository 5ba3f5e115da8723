// ends: cpu
const a=Array(1500000); for(;;) a.fill(1)
