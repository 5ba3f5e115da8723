// ends: cpu
new Function(Array.from({ length: 60000 }, (_, n) => 'var name' + n).join(';'));
