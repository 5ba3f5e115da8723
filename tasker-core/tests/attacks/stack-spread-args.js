// ends: completed undefined
function f(){return arguments.length} f(...new Array(60000).fill(1))
