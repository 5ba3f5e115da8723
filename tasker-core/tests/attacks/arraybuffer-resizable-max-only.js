// ends: completed undefined
const k=[]; for(let i=0;i<2000;i++) k.push(new ArrayBuffer(0,{maxByteLength:1<<30})); k.length
