// ends: memory
[...'x'.repeat(20000000)].length
