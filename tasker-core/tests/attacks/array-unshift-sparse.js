// ends: cpu
const sparse = [];
sparse[2 ** 32 - 3] = 1;
try { sparse.unshift(1); } catch {}
return 'survived';
