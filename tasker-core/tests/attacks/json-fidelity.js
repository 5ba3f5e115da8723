// ends: completed undefined
JSON.stringify({a:-0,b:NaN,c:Infinity,d:undefined,e:new Date(0),f:new Map([[1,2]]),g:[,1],h:2**53+1,i:()=>1,j:Symbol('x'),k:'\uD800',l:new Uint8Array(2),m:'\u2028'})
