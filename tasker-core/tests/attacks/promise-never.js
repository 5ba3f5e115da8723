// ends: error NeverSettlesError
await new Promise(() => {});
