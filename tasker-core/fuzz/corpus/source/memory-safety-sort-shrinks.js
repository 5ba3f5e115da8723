module.exports = async (input, context) => { const { tools } = context;
try {
const a = [5, 4, 3, 2, 1];
a.sort(() => { a.length = 0; return -1; });
} catch {}
return 'ok';

};
