//! The same task gives the same result and the same journal when it is parked after every single call as when it never is, and
//! the same behind both walls.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use tasker_core::testing::{Stub, TestClock, TestEngine, sandbox_program, test_wall};
use tasker_core::{Json, MemoryStorage, ServiceError, StackRunId, Wall};

/// What a row of the journal says, without ids and times.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// `seq` of the frame and of all frames above it, then its own.
    place: Vec<u32>,
    what: String,
    status: String,
    delivered: Option<u32>,
    outcome: String,
}

async fn journal(test: &TestEngine, run: tasker_core::TaskRunId) -> Vec<Entry> {
    let rows = test.storage().stack_runs(run).await.unwrap();
    let mut places: HashMap<StackRunId, Vec<u32>> = HashMap::new();
    let mut entries = Vec::new();
    for row in &rows {
        let mut place = row
            .parent
            .map(|parent| places[&parent].clone())
            .unwrap_or_default();
        place.push(row.seq.0);
        places.insert(row.id, place.clone());
        entries.push(Entry {
            place,
            what: format!("{} {}.{} {:?}", row.kind, row.service, row.path, row.args),
            status: row.status.to_string(),
            delivered: row.delivered_order,
            outcome: format!("{:?}", row.outcome),
        });
    }
    entries.sort();
    entries
}

async fn run(
    parked: bool,
    source: &str,
    input: &Value,
) -> (Result<Value, String>, Vec<Entry>, Vec<String>) {
    run_behind(test_wall(), parked, source, input).await
}

async fn run_behind(
    wall: Wall,
    parked: bool,
    source: &str,
    input: &Value,
) -> (Result<Value, String>, Vec<Entry>, Vec<String>) {
    let stub = Stub::new("svc")
        .answer("fail", |_| {
            Err(ServiceError::conflict("taken").with_code("TAKEN"))
        })
        .answer("page", |call| {
            let page: u32 = call.arg(0)?;
            let next = if page < 3 {
                json!(page + 1)
            } else {
                json!(null)
            };
            Json::from(&json!({"items": [page * 10, page * 10 + 1], "next": next}))
                .map_err(ServiceError::internal)
        });
    let test = TestEngine::on(Arc::new(MemoryStorage::new()), TestClock::default())
        .stub(&stub)
        .with(|builder| builder.park_always(parked).wall(wall))
        .start()
        .await;
    test.publish("module.exports = async (n, { tools }) => [await tools.svc.echo(n), await tools.svc.echo(n + 1)]", "inner").await;
    test.publish(source, "outer").await;
    let handle = test.submit("outer", input).await;
    let result = test
        .finish::<Value>(&handle)
        .await
        .map_err(|error| error.to_string());
    test.engine().quiet().await;
    assert!(test.audit().await.is_empty());
    let performed = stub
        .ledger()
        .into_iter()
        .map(|call| format!("{}{:?}", call.method, call.args))
        .collect();
    (result, journal(&test, handle.id()).await, performed)
}

async fn same_in_both(source: &str, input: Value) {
    let (result, journal, performed) = run(false, source, &input).await;
    let parked = run(true, source, &input).await;
    assert_eq!(parked.0, result, "{source}");
    assert_eq!(parked.1, journal, "{source}");
    assert_eq!(parked.2, performed, "{source}");
    assert!(journal.len() > 2, "the task made no calls: {source}");
    for wall in [
        Wall::in_process(),
        Wall::process().program(sandbox_program()),
    ] {
        for parked in [false, true] {
            let there = run_behind(wall.clone(), parked, source, &input).await;
            assert_eq!(there.0, result, "{wall:?}: {source}");
            assert_eq!(there.1, journal, "{wall:?}: {source}");
            assert_eq!(there.2, performed, "{wall:?}: {source}");
        }
    }
}

#[tokio::test]
async fn a_loop_with_state_and_a_caught_failure() {
    same_in_both(
        r"module.exports = async (input, { tools }) => {
            const seen = new Map();
            for (let i = 0; i < 12; i++) {
                try { seen.set('k' + i, i % 3 === 2 ? await tools.svc.fail(i) : await tools.svc.echo(i)) }
                catch (e) { seen.set('k' + i, e.code) }
            }
            return [...seen];
        }",
        json!(null),
    )
    .await;
}

#[tokio::test]
async fn pages_by_async_iteration() {
    same_in_both(
        r"module.exports = async (input, { tools }) => {
            async function* pages() {
                let page = 1;
                while (page) { const got = await tools.svc.page(page); yield* got.items; page = got.next }
            }
            const all = [];
            for await (const item of pages()) all.push(await tools.svc.echo(item));
            return all;
        }",
        json!(null),
    )
    .await;
}

#[tokio::test]
async fn nested_tasks_and_timers_in_sequence() {
    same_in_both(
        r"module.exports = async (input, { tools }) => {
            const from = Date.now();
            const a = await tools.tasks.execute('inner', 1);
            await tools.sleep(90_000);
            const b = await tools.tasks.execute('inner', 10);
            return [a, b, Date.now() - from >= 90_000, typeof Math.random()];
        }",
        json!(null),
    )
    .await;
}

#[tokio::test]
async fn random_values_and_ids_come_from_the_recorded_seed() {
    let source = r"module.exports = async (input, { tools }) => {
        const first = [Math.random(), crypto.randomUUID()];
        await tools.sleep(600_000);
        const second = [Math.random(), crypto.randomUUID()];
        return (await tools.svc.echo({ first, second }));
    }";
    for parked in [false, true] {
        // The recorded arguments are checked on each replay: had a value changed, the run would be blocked.
        let (result, ..) = run(parked, source, &json!(null)).await;
        let value = result.unwrap();
        assert_ne!(value["first"], value["second"]);
    }
}

#[tokio::test]
async fn parallel_calls_settle_in_the_order_recorded() {
    // Which of several parallel answers comes first may differ from run to run; what was recorded must hold in each.
    for parked in [false, true] {
        let (result, journal, _) = run(
            parked,
            r"module.exports = async (input, { tools }) => {
                const order = [];
                await Promise.all([1, 2, 3, 4, 5].map(async (n) => { await tools.svc.echo(n); order.push(n); await tools.svc.echo('after ' + n) }));
                await tools.sleep(600_000);
                return order;
            }",
            &json!(null),
        )
        .await;
        let order: Vec<u32> = serde_json::from_value(result.unwrap()).unwrap();
        let mut recorded: Vec<(u32, u32)> = journal
            .iter()
            .filter(|entry| {
                (2..=2).contains(&entry.place.len()) && (1..=5).contains(&entry.place[1])
            })
            .map(|entry| (entry.delivered.unwrap(), entry.place[1]))
            .collect();
        recorded.sort_unstable();
        assert_eq!(
            order,
            recorded.into_iter().map(|(_, n)| n).collect::<Vec<_>>(),
            "parked: {parked}"
        );
    }
}
