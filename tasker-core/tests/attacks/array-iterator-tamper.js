// ends: completed "real"
Array.prototype[Symbol.iterator]=function*(){ yield 'evil' }; Object.prototype.toJSON=function(){ return 'toJSON-forged' }; globalThis.__result=(async()=>{ const r=await context.tools.svc.m('real'); return r })(); 0
