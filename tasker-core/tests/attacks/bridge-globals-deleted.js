// ends: completed 4
for (const name of Reflect.ownKeys(globalThis)) { try { delete globalThis[name]; } catch {} }
return await tools.svc.m(4);
