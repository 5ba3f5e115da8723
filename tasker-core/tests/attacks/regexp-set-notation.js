// ends: cpu
return /^(?:[\p{L}&&[a-z]]+)+$/v.test('a'.repeat(40) + '!');
