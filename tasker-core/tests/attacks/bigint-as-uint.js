// ends: error RangeError
return String(BigInt.asUintN(2 ** 53 - 1, -1n)).length;
