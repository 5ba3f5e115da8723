// ends: error ReferenceError
JSON.stringify([new Date().getTimezoneOffset(), Date.now()>0, new Date(0).toString(), Math.random()!=Math.random(), typeof performance, typeof performance?.now()])
