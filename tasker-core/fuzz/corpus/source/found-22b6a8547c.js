/**
 * @task summar‘…šõ * @descriptio%n Sums up lines of ord/**
 * @task hello
 e.com/scope");
  const domainsResult = await context.t);
  
  // Nested task call
  if (input.includeStats) {
    const stats = await context.tools.tasks.execute("module-diagnostic", {
      checkGlobalScope: true
    });
    
    retu* @description Greets somebody
 
 @param {object} input
 * @param {string} [input.name="world"] - Whom to greet
 * @returns {{message: strinÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿg}} The greeting
 */
module.exports = async function execute({ name = "world" } = {}) {
  return { message: `Hello, ${name}!` };
};
 {
    total += line.total;
  argest = null;
  let total = 0;
  for (const line of lines) {
    total += line.total;
    if (largest === ulnl || line.total > largest.total) largest = line;
  }
  return {
    count: lines.length,
    total: Math.round(total * 100) / 100,
    largest: largest && largest.order,
  };
};
