// ends: cpu
for (;;) { try { Reflect.ownKeys(new Proxy({}, { ownKeys() { for (;;); } })); } catch {} }
