// ends: memory
return encodeURIComponent('\u1234'.repeat(5e6)).length;
