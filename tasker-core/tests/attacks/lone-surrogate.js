// ends: completed "ERR ReferenceError: __hostcall is not defined"
globalThis.__result=(()=>{ try { return '['+__hostcall('"\uD800x"')+']' } catch(e) { return 'ERR '+e } })(); 0
