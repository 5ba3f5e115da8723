// ends: cpu
for(let i=0;;i++) Symbol.for('k'+i)
