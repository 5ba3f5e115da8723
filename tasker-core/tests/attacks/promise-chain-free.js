// ends: memory
let p=Promise.resolve(); for(let i=0;i<100000;i++) p=p.then(()=>0); globalThis.__result=p.then(()=>'ok'); 0
