// ends: cpu
return /^(x+x+)+y/.test('x'.repeat(40));
