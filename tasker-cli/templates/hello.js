/**
 * Greets somebody after a moment.
 * @task hello
 * @param {object} input - What to do
 * @param {string} [input.name] - Whom to greet
 * @returns {object} The greeting
 */
module.exports = async function hello(input, context) {
  console.log("greeting", input.name ?? "world");
  await context.tools.sleep(100);
  return { message: `Hello, ${input.name ?? "world"}!` };
};
