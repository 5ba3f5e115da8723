// ends: memory
String.prototype.concat.apply('', new Array(60000).fill('x'.repeat(20000))).length
