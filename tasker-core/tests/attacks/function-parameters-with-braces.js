// ends: completed "SyntaxError undefined"
let name = 'none';
try { new Function('}); globalThis.escaped = 1; (function () {', '')(); } catch (error) { name = error.name; }
return name + ' ' + typeof escaped;
