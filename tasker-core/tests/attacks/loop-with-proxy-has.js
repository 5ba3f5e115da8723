// ends: cpu
with (new Proxy({}, { has() { for (;;); } })) x;
