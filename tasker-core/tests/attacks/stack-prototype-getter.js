// ends: stack
Object.defineProperty(Object.prototype, 'deep', { get() { return this.deep; } });
return {}.deep;
