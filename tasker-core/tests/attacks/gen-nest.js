// ends: stack
function* g(n){ if(n) yield* g(n-1); yield n } let c=0; for(const x of g(5000)) c++; c
