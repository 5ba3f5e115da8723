// ends: error Error
const r=Proxy.revocable({},{}); r.revoke(); throw r.proxy
