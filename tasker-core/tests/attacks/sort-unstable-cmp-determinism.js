// ends: completed undefined
JSON.stringify([5,3,1,4,2,9,8,7,6,0,11,10].sort(()=>-1))
