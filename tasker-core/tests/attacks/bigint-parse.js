// ends: error RangeError
BigInt('9'.repeat(3000000))
