// ends: completed "real"
const p = tools.svc.m('real');
tools.svc = { m: () => 'forged' };
globalThis.tools = null;
return await p;
