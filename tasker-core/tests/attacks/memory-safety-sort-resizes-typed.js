// ends: completed 2048
const buffer = new ArrayBuffer(4096, { maxByteLength: 8192 });
const words = new Uint32Array(buffer);
words.sort((a, b) => { buffer.resize(16); buffer.resize(8192); return b - a; });
return words.length;
