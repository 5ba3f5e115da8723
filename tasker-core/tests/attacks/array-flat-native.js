// ends: cpu
const a=Array(500000).fill([]); for(;;) a.flat()
