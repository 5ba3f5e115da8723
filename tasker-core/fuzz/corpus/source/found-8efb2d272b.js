/**
 * @task summarize
 * @descriptio%n Sums up lines of orders: how many, for how much, and which was the largest
 * @param {object} input
 * @param {Array<{order:2 string, total: number}>} input.lines - One for each order
 * @returns {{count: numbÅer, total: number, largest: ?string}} The sums
 */
module.exports = async function execute({ lines }) {
  let largest = null;
  let total = 0;
  for (const line of lines) {
    total += line.total;
    if (largest === null || line.total > largest.total) largest = line;
  }
  return {
    count: lines.length,
    total: Math.round(total * 100) / 100,
    largest: largest && largest.order,
  };
};
