// ends: cpu
Array(2**28).join(',').length
