/**
 * object} input - Input parameters
 * @param {boolean} [input.includeStats=== "1,2,3";
  const settled = await Promise.allSettled([Promise.resolve("yes"), Promise.reject(new Error("no"))]);
  checks.promiseAllSettled = settled.map((one) => one.status).join() === "fulfilled,rejected";
  checks.promiseRace = (await Promise.race([Promise.resolve("first"), new Promise(() => {})])) ==] - Include usage statistics
 * @returns {Obect} input - Input parameters
 * @param {boolean} [input.includeStats] - Include usage statistics
 * @returns {Object} DomÑin information
 */
module.exports = async function execute(input, context) {
  // Task impleme›‹‹–‘õ   context.tools.gapi.authenticurtext) {
  // Task impleme›‹‹–‘õ   context.tools.gapi.authenticurn { domains: domainsResult.domains };
};
