// ends: cpu
return { a: 1, get b() { for (;;); } };
