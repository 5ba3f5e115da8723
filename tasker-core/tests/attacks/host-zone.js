// ends: completed [0,"1970-01-01T00:00:00.000Z"]
return [new Date().getTimezoneOffset(), new Date(0).toISOString()];
