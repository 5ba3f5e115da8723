// ends: cpu
const s='\u0344'.repeat(200000); for(;;) s.localeCompare(s+'a')
