// ends: completed "alive"
Promise.reject(new Error('nobody listens'));
for (let n = 0; n < 100; n++) Promise.reject(n);
return 'alive';
