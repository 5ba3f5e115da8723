// ends: cpu
const ping = () => queueMicrotask(pong), pong = () => queueMicrotask(ping);
ping();
await new Promise(() => {});
