// ends: cpu
const s='\u1234'.repeat(2000000); for(;;) escape(s)
