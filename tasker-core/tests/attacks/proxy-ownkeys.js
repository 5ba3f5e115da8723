// ends: memory
Object.keys(new Proxy({}, {ownKeys(){ return Array.from({length:1e6},(_, i)=>'k'+i)}}))
