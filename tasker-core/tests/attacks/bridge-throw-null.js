// ends: error Error
throw null;
