// ends: stack
const deep = () => ({ toJSON() { return { x: deep() }; } });
return JSON.stringify(deep());
