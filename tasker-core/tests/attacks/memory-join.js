// ends: memory
return new Array(1e6).join('abc'.repeat(100)).length;
