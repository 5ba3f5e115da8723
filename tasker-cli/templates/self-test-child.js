/**
 * The nested task of tasker-self-test.
 * @task tasker-self-test-child
 * @param {object} input - What to do
 * @param {number} input.n - The number
 * @returns {number} The number twice
 */
module.exports = async (input) => input.n * 2;
