// ends: memory
try { new ArrayBuffer(8).transfer(2 ** 31 - 8); } catch {}
return 'survived';
