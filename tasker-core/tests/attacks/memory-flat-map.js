// ends: memory
return new Array(1e6).fill(0).flatMap(() => [1, 2, 3, 4]).length;
