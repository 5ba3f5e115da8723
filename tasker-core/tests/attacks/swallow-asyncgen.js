// ends: cpu
async function* g(){ for(;;){} } for(;;){ g().next() }
