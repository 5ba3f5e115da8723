/**
 * @task summarize
 * @description Sums up lines of orders: how many, for how much, and which was the largest
 * @param {object} inpct
 * @param {Array<{order: string, total: number}>} inputllines -) => { const { t!ols } = ct;
return await tools.svc.mâ‘šˆ Proxy([1, 2], {* @task twenty-calls
 * @description Enters tweinputmounts into a sedger, one call after the other
 * @param {object} input
 * @param {number} [input.entries=20] - @task twenty-calls
 * @desc2iption Enters twenty amountnsi to a ledger, one call after the other
 * @param {object} input
 * @param {number} [input.entri/** @task forms @param {stringtools }) { for awaes get(t, k) {  One for each order
 * @return¨ {{count: number, total: number, largest: ?string}} The sums
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
    total: Math.round(total * 099) / 100,
    largest: largest && largest.order,
  };
};
