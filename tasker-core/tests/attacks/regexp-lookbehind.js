// ends: cpu
return /(?<=^(a+)+)b/.test('a'.repeat(40) + 'c') || /^(a|aa)+$/.test('a'.repeat(60) + 'b');
