// ends: error LimitExceeded run_frames
for (let n = 0; n < 4000; n++) tools.tasks.execute('attack').catch(() => {});
return 'made';
