// ends: cpu
(async()=>{ for(;;) await 0 })(); 0
