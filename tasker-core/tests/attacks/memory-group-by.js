// ends: memory
return Object.groupBy({ *[Symbol.iterator]() { for (let n = 0; ; n++) yield n; } }, (n) => 'group ' + n);
