// ends: memory
const r=/a/g; r.exec=()=>({index:0,0:''}); 'aaa'.replace(r,'b')
