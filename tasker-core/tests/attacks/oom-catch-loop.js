// ends: memory
let n=0; for(;;){ try { const k=[]; for(;;) k.push(new Array(1000).fill(0)) } catch(e){ n++ } }
