//! What the workers run, and what must come of it.

use serde_json::{Value, json};

/// Tasks by name.
pub(crate) const TASKS: &[(&str, &str)] = &[
    (
        "chain",
        "/** @task chain */
        module.exports = async ({ n }, { tools }) => {
            let sum = n;
            for (let step = 0; step < 5; step += 1) sum = await tools.world.add({ a: sum, b: step });
            return sum;
        }",
    ),
    (
        "fan",
        "/** @task fan */
        module.exports = async ({ n }, { tools }) => {
            const parts = await Promise.all([1, 2, 3, 4].map((b) => tools.world.add({ a: n, b })));
            const nested = await tools.tasks.execute('chain', { n });
            tools.world.add({ a: n, b: 0 });
            return parts.reduce((sum, part) => sum + part, nested);
        }",
    ),
    (
        "wait",
        "/** @task wait */
        module.exports = async ({ n }, { tools }) => {
            const first = await tools.world.add({ a: n, b: 1 });
            await tools.sleep(300);
            const second = await Promise.race([tools.world.add({ a: first, b: 1 }), tools.sleep(3_600_000)]);
            try { await tools.world.refuse({ n }); } catch (error) { return second; }
        }",
    ),
    (
        "fails",
        "/** @task fails */
        module.exports = async ({ n }, { tools }) => {
            await tools.world.add({ a: n, b: 1 });
            await tools.world.refuse({ n });
        }",
    ),
];

/// The n-th run: its task, its input, and its result (`None`: it fails).
pub(crate) fn run(n: u64) -> (&'static str, Value, Option<Value>) {
    let chain = n + 1 + 2 + 3 + 4;
    let (task, result) = match n % 20 {
        0..8 => ("chain", Some(chain)),
        8..14 => ("fan", Some(4 * n + 10 + chain)),
        14..19 => ("wait", Some(n + 2)),
        _ => ("fails", None),
    };
    (task, json!({ "n": n }), result.map(|sum| json!(sum)))
}
