// ends: completed undefined
const b=new ArrayBuffer(8*100000,{maxByteLength:8*100000}); const a=new Float64Array(b); let n=0; a.sort(()=>{ if(n++==5) b.resize(8); return -1 }); a.length
