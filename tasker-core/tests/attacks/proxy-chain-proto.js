// ends: memory
let p={}; for(let i=0;i<200000;i++) p=Object.create(p); p.x; p instanceof Object
