// ends: cpu
const f=()=>{ for(;;){} }; for(;;){ try { new Promise(f) } catch {} }
