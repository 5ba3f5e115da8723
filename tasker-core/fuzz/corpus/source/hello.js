/**
 * @task hello
 * @description Greets somebody
 * @param {object} input
 * @param {string} [input.name="world"] - Whom to greet
 * @returns {{message: string}} The greeting
 */
module.exports = async function execute({ name = "world" } = {}) {
  return { message: `Hello, ${name}!` };
};
