// ends: cpu
for(;;){ try { null[{toString(){ for(;;){} }}] } catch {} }
