// ends: cpu
let n=0; while(true){ try { while(true){} } catch(e){ n++ } }
