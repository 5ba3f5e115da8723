// ends: cpu
const a=new Float64Array(2000000); for(let i=0;i<a.length;i++) a[i]=-i; for(;;) a.sort()
