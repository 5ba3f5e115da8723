// ends: completed true
return (function () { return this; })() === globalThis && new Function('return this')() === globalThis;
