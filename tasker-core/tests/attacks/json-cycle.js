// ends: error TypeError
const a={}; a.a=a; JSON.stringify(a)
