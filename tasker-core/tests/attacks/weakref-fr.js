// ends: error ReferenceError
let r=[]; const fr=new FinalizationRegistry(x=>r.push(x)); for(let i=0;i<10;i++){ fr.register({}, i) } let w=new WeakRef({}); print('deref '+typeof w.deref()); globalThis.__result=new Promise(res=>Promise.resolve().then(()=>res(r.length+' '+typeof w.deref()))); 0
