// ends: error ReferenceError
globalThis.__result=__hostcall(JSON.stringify('a\0b')); 0
