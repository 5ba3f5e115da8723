// ends: error Error
return require('fs').readdirSync('/');
