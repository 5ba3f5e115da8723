// ends: completed undefined
Error.prepareStackTrace=(e,s)=>s.map(c=>[typeof c.getThis, typeof c.getFunction, c.getFileName(), c.getFunctionName(), Object.getOwnPropertyNames(Object.getPrototypeOf(c)).join()].join(':')).join(' '); new Error('x').stack
