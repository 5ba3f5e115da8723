// ends: cpu
for(;;){ import({toString(){ for(;;){} }}) }
