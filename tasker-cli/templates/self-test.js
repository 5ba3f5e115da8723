/**
 * Doubles a number through a nested task: what admin-debug runs to see that runs go through.
 * @task tasker-self-test
 * @param {object} input - What to do
 * @param {number} input.n - The number
 * @returns {object} The number twice
 */
module.exports = async function selfTest(input, context) {
  return { doubled: await context.tools.tasks.execute("tasker-self-test-child", { n: input.n }) };
};
