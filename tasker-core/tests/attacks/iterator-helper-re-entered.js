// ends: error TypeError
let mapped;
mapped = Iterator.from({ next() { return mapped.next(); } }).map((x) => x);
return mapped.next();
