// ends: stack
return JSON.parse('['.repeat(100000) + ']'.repeat(100000)).length;
