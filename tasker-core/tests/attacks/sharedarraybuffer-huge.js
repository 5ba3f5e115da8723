// ends: error ReferenceError
const k=[]; for(let i=0;i<200;i++) { const s=new SharedArrayBuffer(1<<20); new Uint8Array(s).fill(1); k.push(s)} k.length
