// ends: stack
eval('a=>'.repeat(50000)+'1')
