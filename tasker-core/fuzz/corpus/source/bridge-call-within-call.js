module.exports = async (input, context) => { const { tools } = context;
let inner;
const outer = await tools.svc.m({ toJSON() { inner = tools.svc.m('inner'); return 'outer'; } });
return [outer, await inner];

};
