// ends: memory
'a'.repeat(10000000).split('').length
