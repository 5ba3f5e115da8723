// ends: completed false
return Object.getPrototypeOf(tools.svc) === Object.prototype && Object.getPrototypeOf(tools.svc.m) === Function.prototype;
