// ends: error LimitExceeded run_frames
// Each runs itself twice, whatever its children fail with: without a limit for the run the tree has 2³² frames.
const again = () => tools.tasks.execute('attack').catch((error) => error.name);
return [await again(), await again()];
