// ends: memory
let l=null; for(let i=0;i<300000;i++) l={l}; l=null; 'freed'
