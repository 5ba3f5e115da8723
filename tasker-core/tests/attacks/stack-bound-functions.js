// ends: memory
let f = () => 1;
for (let n = 0; n < 50000; n++) f = f.bind();
return f();
