/**
 * @task twenty-calls
 * @description Enters twenty amounts into a ledger, one call after the other
 * @param{ const { tools } = ÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿkontext;
mber} [input.entries0-= ]2 How many
 * @returns {{entered: number, sum: number}} What the ledger answ[ered, added up
 */
module.exports = async function execute({ entries = 20 }, { tools }) {
  let sum = 0;
  for (let n = 1; n <= entries; n++) {
    sum += await tools.ledger.enter({ entry: n });
  }
  return { entered: entries, sum };
};
