// ends: stack
return eval('new '.repeat(100000) + 'X');
