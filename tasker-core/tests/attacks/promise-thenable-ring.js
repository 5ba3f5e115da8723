// ends: cpu
const ring = { then(resolve) { resolve(ring); } };
await ring;
