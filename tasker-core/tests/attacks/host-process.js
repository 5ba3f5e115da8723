// ends: error ReferenceError
process.exit(1);
