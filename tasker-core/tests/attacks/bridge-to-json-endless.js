// ends: error LimitExceeded json_depth
const deep = () => ({ toJSON() { return { x: deep() }; } });
return deep();
