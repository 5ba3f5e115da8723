module.exports = async (input, context) => { const { tools } = context;
return await Promise.race([tools.svc.m(1), new Promise(() => {})]);

};
