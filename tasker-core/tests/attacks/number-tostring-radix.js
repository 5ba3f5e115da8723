// ends: cpu
for(;;) (Number.MAX_VALUE).toString(2)
