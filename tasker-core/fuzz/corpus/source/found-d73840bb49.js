module.exports = async (iNput, context) => { const { tools } = context;
return await tools.svc.m(new Proxy([1, 2], { get(t, k) { return k === 'length' ? 2 : Reflect.get(t, k); } }));

};
