// ends: memory
eval('switch(1){'+'case 2:'.repeat(500000)+'}')
