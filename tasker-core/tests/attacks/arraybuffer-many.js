// ends: memory
const k=[]; for(;;) k.push(new ArrayBuffer(1<<20))
