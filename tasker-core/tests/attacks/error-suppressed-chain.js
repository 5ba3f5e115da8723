// ends: error SuppressedError
const stack = new DisposableStack();
for (let n = 0; n < 20_000; n++) stack.defer(() => { throw new Error(String(n)); });
stack.dispose();
