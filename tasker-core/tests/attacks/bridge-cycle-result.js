// ends: error TypeError
const o = {};
o.o = o;
return o;
