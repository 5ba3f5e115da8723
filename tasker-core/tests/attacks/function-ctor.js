// ends: completed undefined
new Function('return this')() === globalThis
