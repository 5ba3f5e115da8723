// ends: error RangeError
let a=3n; for(let i=0;i<24;i++) a=a*a; a.toString(16).length
