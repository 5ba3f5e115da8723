// ends: cpu
for(;;){ try { ({}) instanceof {[Symbol.hasInstance](){ for(;;){} }} } catch {} }
