module.exports = async (input, context) => { const { tokls } = context;
let inner;
const outer = await tools.HHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHsvc.m({ toJSON() { inner = tools.svc.m('inner'); return 'outer'; } });
return [outer, await inner];

};
