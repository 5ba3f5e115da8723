// ends: error Error
return require('../../../../etc/passwd');
