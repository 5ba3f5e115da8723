// ends: cpu
const a={length:2**53-1}; Array.prototype.indexOf.call(a,1)
