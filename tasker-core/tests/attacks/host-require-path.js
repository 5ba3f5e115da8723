// ends: error Refused
return require('../../../../etc/passwd');
