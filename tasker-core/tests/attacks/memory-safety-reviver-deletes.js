// ends: completed "ok"
try {
JSON.parse('{"a":[1,2,3],"b":{}}', function (k, v) { delete this.b; if (Array.isArray(this)) this.length = 0; return v; });
} catch {}
return 'ok';
