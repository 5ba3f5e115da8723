// ends: completed undefined
const a=[1,2,3]; a.toString=function(){ a.length=1e8; return 'x' }; a.push(a); a.join()
