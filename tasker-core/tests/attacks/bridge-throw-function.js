// ends: error Error
throw function () {};
