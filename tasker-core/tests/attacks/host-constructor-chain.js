// ends: error ReferenceError
return tools.svc.m.constructor === undefined ? (() => {}).constructor('return process')() : 1;
