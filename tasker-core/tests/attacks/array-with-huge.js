// ends: memory
try { Array.prototype.with.call({ length: 2 ** 30 }, 0, 1); } catch {}
return 'survived';
