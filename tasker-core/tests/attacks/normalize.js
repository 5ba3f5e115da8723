// ends: cpu
let s='\u1E9B\u0323'.repeat(1000000); for(;;) s.normalize('NFKD')
