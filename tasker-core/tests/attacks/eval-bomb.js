// ends: memory
for(let i=0;;i++){ (0,eval)('var g'+i+'=function(){return '+i+'}') }
