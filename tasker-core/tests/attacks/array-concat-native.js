// ends: memory
const a=Array(700000).fill(1); for(;;) a.concat([])
