// ends: memory
const p=new Promise(()=>{}); for(;;) p.then(()=>{})
