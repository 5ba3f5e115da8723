// ends: completed "{\"a\":1}"
const P=Promise; globalThis.Promise=function(ex){ return new P((res,rej)=>ex(v=>{ print('intercepted '+JSON.stringify(v)); res({forged:1}) },rej)) }; globalThis.__result=(async()=>JSON.stringify(await context.tools.svc.m({a:1})))(); 0
