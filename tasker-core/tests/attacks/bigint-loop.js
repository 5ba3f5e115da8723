// ends: cpu
let a=(1n<<500000n)-1n; for(;;) a*a%3n
