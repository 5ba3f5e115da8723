// ends: memory
const k=[]; for(let i=0;;i++){ const o={}; o['a'+i]=1; k.push(o)}
