// ends: stack
return eval('1?'.repeat(100000) + '1' + ':1'.repeat(100000));
