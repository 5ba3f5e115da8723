// ends: error Error
const error = new Error('a ring');
error.cause = new Error('and back', { cause: error });
throw error;
