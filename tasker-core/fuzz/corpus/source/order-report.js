/**
 * @task order-report
 * @description Reads orders one by one, prices their items in parallel, and reports the sums
 *
 * Every `await` on a tool is a point at which the run can be put away and taken up again, by another process too.
 *
 * @param {object} input
 * @param {Array<string>} input.orders - Ids of the orders to report on
 * @param {string} [input.currency="EUR"] - Currency of the prices
 * @returns {{currency: string, lines: Array<{order: string, total: number}>, failed: Array<{order: string, reason: string}>, summary: object}} The report
 * @throws {Error} When no order id is given
 */
module.exports = async function execute(input, context) {
  const { orders: ids = [], currency = "EUR" } = input;
  const { orders, prices, tasks, sleep, log } = context.tools;
  if (ids.length === 0) throw new Error("give at least one order id in input.orders");

  const lines = [];
  const failed = [];
  for (const id of ids) {
    try {
      // One call after the other …
      const order = await orders.find({ id });
      // … and as many at once as the order has items.
      const found = await Promise.all(order.items.map((item) => prices.price({ sku: item.sku, currency })));
      const total = order.items.reduce((sum, item, i) => sum + item.quantity * found[i].price, 0);
      lines.push({ order: id, total: Math.round(total * 100) / 100 });
    } catch (error) {
      // A failed call arrives as an Error with type and code; the report goes on without that order.
      log("warn", `order ${id} is left out: ${error.message}`);
      failed.push({ order: id, reason: error.type || error.name });
    }
  }

  // Timers are durable too: a longer one would outlive this process.
  await sleep(50);

  // Another published task, with its own version and its own part of the trace.
  const summary = await tasks.execute("summarize", { lines });
  return { currency, lines, failed, summary };
};
