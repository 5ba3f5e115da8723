// ends: error RangeError
return 1n << (2n ** 62n);
