// ends: memory
let o=[]; for(let i=0;i<2000;i++) o=[o]; JSON.stringify(o,null,10).length
