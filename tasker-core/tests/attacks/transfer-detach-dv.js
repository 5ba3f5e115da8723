// ends: error TypeError
const b=new ArrayBuffer(64); const d=new DataView(b); d.setInt8({valueOf(){ b.transfer(); return 1 }},1)
