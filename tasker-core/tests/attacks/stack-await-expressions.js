// ends: stack
return eval('async () => {' + 'await '.repeat(100000) + '1}');
