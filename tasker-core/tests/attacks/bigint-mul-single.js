// ends: error RangeError
let a=(1n<<1000000n)-1n; (a*a)&1n
