// ends: error Error
return require(['f', 's'].join(''))['readdir' + 'Sync']('/');
