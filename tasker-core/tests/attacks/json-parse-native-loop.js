// ends: cpu
const s=JSON.stringify(Array(300000).fill(1)); for(;;) JSON.parse(s)
