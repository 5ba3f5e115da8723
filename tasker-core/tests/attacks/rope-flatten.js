// ends: memory
let s='x'; for(let i=0;i<29;i++) s=s+s; s.charCodeAt(5)
