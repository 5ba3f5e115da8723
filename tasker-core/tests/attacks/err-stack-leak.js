// ends: completed undefined
new Error('x').stack
