// ends: error Error
globalThis.__result=import('fs'); 0
