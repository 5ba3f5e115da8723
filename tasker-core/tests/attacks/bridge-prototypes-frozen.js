// ends: completed {"a":[1]}
for (const name of ['Object', 'Array', 'Function', 'Promise', 'String', 'RegExp', 'Map']) { Object.freeze(globalThis[name]); Object.freeze(globalThis[name].prototype); }
return await tools.svc.m({ a: [1] });
