// ends: error Error
let error = new Error('first');
for (let n = 0; n < 50_000; n++) error = new Error(String(n), { cause: error });
throw error;
