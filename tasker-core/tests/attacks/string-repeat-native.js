// ends: cpu
for(;;) 'x'.repeat(20000000)
