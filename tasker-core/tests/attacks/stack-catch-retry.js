// ends: cpu
let n=0; function f(){ try { f() } catch(e){ n++; f() } } f()
