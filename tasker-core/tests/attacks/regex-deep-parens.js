// ends: error SyntaxError
new RegExp('('.repeat(50000)+')'.repeat(50000))
