// ends: completed "ok"
try {
(function (a) { arguments[0] = 2; delete arguments[0]; arguments.length = 1e9; a = [].slice.call(arguments, 0, 5); })(1);
} catch {}
return 'ok';
