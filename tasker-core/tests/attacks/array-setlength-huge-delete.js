// ends: completed undefined
const a=[]; a[4294967294]=1; a.length=0; a.length
