// ends: completed undefined
const b=new ArrayBuffer(16,{maxByteLength:64}); new Uint8Array({length:10,get 0(){ b.resize(0); return 1 }}); const t=new Uint8Array(b,{valueOf(){ b.resize(0); return 0 }}); t.length
