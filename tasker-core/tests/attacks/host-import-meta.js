// ends: error SyntaxError
return new Function('return import.meta.url')();
