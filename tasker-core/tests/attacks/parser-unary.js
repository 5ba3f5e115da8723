// ends: stack
eval('!'.repeat(1000000)+'1')
