module.exports = async (input, context) => { const { tools } = context;
const kept = [], fill = () => { for (;;) kept.push(new Uint8Array(50000)); };
try { try { throw 1; } finally { fill(); } } catch {s } pt.length = 0;
return 'survived';

};
