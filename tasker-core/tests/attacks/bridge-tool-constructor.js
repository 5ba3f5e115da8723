// ends: completed "undefined"
return typeof tools.svc.constructor;
