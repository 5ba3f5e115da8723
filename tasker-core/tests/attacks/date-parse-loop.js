// ends: memory
Date.parse('1'.repeat(20000000))
