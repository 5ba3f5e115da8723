// ends: error Refused
return require('fs').readdirSync('/');
