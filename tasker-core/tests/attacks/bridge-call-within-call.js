// ends: completed ["outer","inner"]
let inner;
const outer = await tools.svc.m({ toJSON() { inner = tools.svc.m('inner'); return 'outer'; } });
return [outer, await inner];
