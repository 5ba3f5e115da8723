// ends: error SyntaxError
new Function(Array.from({ length: 70000 }, (_, n) => 'var name' + n).join(';'));
