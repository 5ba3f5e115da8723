// ends: memory
'a'.repeat(1<<20).replaceAll('a','b'.repeat(1<<10)).length
