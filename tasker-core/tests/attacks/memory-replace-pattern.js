// ends: memory
return 'x'.repeat(1e6).replace(/x/g, '$&$&$&$&'.repeat(50)).length;
