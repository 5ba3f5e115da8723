// ends: completed "alive"
setTimeout(() => { throw new Error('late'); }, 1);
await tools.sleep(5);
return 'alive';
