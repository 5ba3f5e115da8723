// ends: cpu
return /^(\d+)*$/.test('1'.repeat(40) + 'a');
