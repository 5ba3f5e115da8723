// ends: cpu
const o={}; for(let i=0;i<100000;i++) o['k'+i]=1; for(;;) Object.keys(o)
