// ends: completed undefined
JSON.stringify(JSON.parse('{"a":1,"a":2}'))
