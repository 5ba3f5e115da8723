// ends: memory
return 'ab'.repeat(5e6).match(/./g).length;
