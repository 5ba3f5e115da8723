// ends: memory
try { new URL('http://x/' + 'a'.repeat(2e7)); } catch {}
return 'survived';
