// ends: memory
globalThis.__b=new Uint8Array(33407121); globalThis.__k=[];
(()=>{ for(let i=0;i<300;i++){ try { __k.push({i}); Promise.allSettled([Promise.reject(new Error("e")),1]) } catch(e) { } } })(); 0
