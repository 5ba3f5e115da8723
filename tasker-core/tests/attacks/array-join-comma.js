// ends: memory
Array(2**28).join(',').length
