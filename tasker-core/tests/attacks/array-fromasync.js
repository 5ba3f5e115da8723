// ends: cpu
globalThis.__result=Array.fromAsync({length:1e9}); 0
