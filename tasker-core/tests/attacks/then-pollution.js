// ends: error NeverSettlesError
Object.prototype.then=function(r){ /* never resolve */ print('then hijack '+JSON.stringify(Object.keys(this))) }; globalThis.__result=(async()=>{ const r=await context.tools.svc.m({a:1}); return 'got '+JSON.stringify(r) })(); 0
