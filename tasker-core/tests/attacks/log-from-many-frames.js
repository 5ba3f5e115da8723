// ends: completed "quiet"
if (context.run.depth === 0) for (let n = 0; n < 20; n++) await tools.tasks.execute('attack');
for (let n = 0; n < 2000; n++) print(n);
return 'quiet';
