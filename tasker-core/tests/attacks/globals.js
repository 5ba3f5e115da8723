// ends: completed undefined
JSON.stringify(Object.getOwnPropertyNames(globalThis))
