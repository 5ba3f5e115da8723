// ends: cpu
return /^(?:a|a)*b/.test('a'.repeat(40));
