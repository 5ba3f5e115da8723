// ends: completed ["undefined"]
return [...new Set(['process', 'std', 'os', 'scriptArgs', 'WebAssembly', 'Worker', 'Deno', 'Bun', 'fetch', 'XMLHttpRequest', 'WebSocket', 'Atomics', 'SharedArrayBuffer', 'WeakRef', 'FinalizationRegistry', 'performance', 'Intl', 'gc', 'load', 'navigator'].map((word) => typeof globalThis[word]))];
