// ends: cpu
const s='x'.repeat(10000000); let n=0; for(;;){ n+=s.split('y').length }
