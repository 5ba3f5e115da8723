//! No statement costs more because of what has ended: the plan of every statement that a workload used, on tables full of
//! ended history.
//!
//! The statements are not listed here: the workload goes through the contract, and what it used is what is explained.
//! What is found: a table read from end to end, an index walked through its ended rows in search of others, a subquery
//! answered for all rows at once.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use tasker_adaptor::{
    CallEnd, CallFinish, CallSeq, Claim, Delivery, DeliverySource, Epoch, FrameNext, Journal as _,
    Json, KeyStore as _, Lease, LogCursor, LogLevel, LogLine, Logs as _, MadeKind,
    Maintenance as _, NewSignal, NewStackRun, NewTask, NewTaskRun, NewWorker, Outcome, Queue as _,
    ReleasedCall, Retention, RunFilter, RunStatus, RunStore as _, Signals as _, StackRunId,
    TaskName, TaskRunId, TaskStore as _, TaskVersion, Timestamp, TurnCommit, TurnNo, Unblock,
    UnblockDecision, WorkerId, Workers as _,
};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use uuid::Uuid;

use crate::{Pooler, PostgresStorage};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Ended runs, folded, each with a root and five delivered calls and a log line.
const HISTORY: &str = "
INSERT INTO task_runs (id, task, version, status, input, outcome, idempotency_key, request_hash, priority, run_at, labels, created_at, started_at, ended_at, folded_at, cleaned)
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'demo', 'v1', 'completed', '{}', '1', n, 'h', 0, n, jsonb_build_object('nr', n::text), n, n, n, CASE WHEN n % 100 > 0 THEN n END, n % 100 > 0 FROM generate_series(1, 10000) n;
INSERT INTO stack_runs (id, task_run_id, kind, seq, depth, status, epoch, turn, made_count, delivered_count, due_at, ready_at, priority, service, path, outcome, created_at, settled_at)
SELECT ('00000000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'frame', 0, 0, 'completed', 1, 6, 5, 5, n, n, 0, 'task', 'demo', '1', n, n FROM generate_series(1, 10000) n;
INSERT INTO stack_runs (id, task_run_id, parent_id, kind, seq, depth, status, epoch, delivered_order, delivered_turn, ready_at, priority, service, path, args, outcome, created_at, settled_at)
SELECT ('00000000-0000-7000-a00' || c || '-' || lpad(to_hex(n), 12, '0'))::uuid, ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, ('00000000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, 'call', c, 0, 'completed', 1, c, c, n, 0, 's', 'p', '[]', '1', n, n FROM generate_series(1, 10000) n, generate_series(1, 5) c;
INSERT INTO task_functions SELECT 'old ' || n % 100, n, '', NULL, '{}', '{}', n, n FROM generate_series(1, 5000) n;
INSERT INTO log_lines SELECT id, 1, NULL, 0, 'info', 'line', NULL FROM task_runs;
INSERT INTO signals (id, task_run_id, name, payload, consumed_by, created_at) SELECT id, id, 'go', '1', id, 0 FROM task_runs;
ANALYZE;";

fn id() -> Uuid {
    Uuid::now_v7()
}

fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

#[tokio::test]
async fn no_statement_reads_ended_history() {
    let url = std::env::var("TASKER_TEST_POSTGRES_URL")
        .expect("TASKER_TEST_POSTGRES_URL is not set: run ./test.sh, which starts a PostgreSQL server for the tests");
    let name = format!("test_plans_{}", id().simple());
    let storage = PostgresStorage::options(&url)
        .schema(&name)
        .pooler(Pooler::Off)
        .connect()
        .await
        .unwrap();
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
        .batch_execute(&format!("SET search_path TO {name}; {HISTORY}"))
        .await
        .unwrap();
    let used = workload(&storage).await;
    client.batch_execute("ANALYZE").await.unwrap();
    // A parameter that is an array may be of any length: the plan must be right without a look at it.
    client
        .batch_execute("SET plan_cache_mode = force_generic_plan")
        .await
        .unwrap();
    let long = long_indexes(&client, &name).await;
    let mut bad = Vec::new();
    for statement in &used {
        bad.extend(faults(&explain(&client, statement).await, &long, statement));
    }
    // A plan that is made while the tables are small is kept while they grow: as transactions plan, on empty tables.
    let small = format!("{name}_small");
    let options = PostgresStorage::options(&url).schema(&small);
    drop(options.pooler(Pooler::Off).connect().await.unwrap());
    client
        .batch_execute("SET enable_seqscan = off")
        .await
        .unwrap();
    for statement in &used {
        let there = statement.replace(&name, &small);
        bad.extend(faults(&explain(&client, &there).await, &long, &there));
    }
    client
        .batch_execute(&format!("DROP SCHEMA {small} CASCADE"))
        .await
        .unwrap();
    client
        .batch_execute(&format!("DROP SCHEMA {name} CASCADE"))
        .await
        .unwrap();
    assert!(
        used.len() > 60,
        "the workload used {} statements only",
        used.len()
    );
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// The statements of a batch of so many turns that suspend on a call, of one that finishes the calls, and of one that blocks
/// the frames.
async fn statements(storage: &PostgresStorage, worker: WorkerId, size: usize) -> [usize; 3] {
    let mut turns = Vec::new();
    for _ in 0..size {
        let run = submit(storage, None).await;
        let epoch = claim(storage, worker, Some(run.1)).await;
        let mut turn = turn_of(run, worker, epoch);
        turn.made = vec![NewStackRun {
            claimed: true,
            ..call()
        }];
        turns.push(turn);
    }
    let asked = || storage.inner.schema.asked();
    let start = asked();
    for answer in storage.commit(Arc::from(turns.clone())).await.unwrap() {
        answer.unwrap();
    }
    let suspended = asked();
    let block = |turn: &TurnCommit| CallFinish {
        call: turn.made[0].id,
        lease: Lease {
            worker,
            epoch: Epoch(1),
        },
        end: CallEnd::Blocked(tasker_adaptor::BlockedReason::OutcomeUnknown {
            service: "s".into(),
            path: "p".into(),
        }),
    };
    let finishes: Vec<CallFinish> = turns.iter().map(block).collect();
    for answer in storage
        .finish_calls(Arc::from(finishes), NOW)
        .await
        .unwrap()
    {
        answer.unwrap();
    }
    let finished = asked();
    // The frames fail, and their blocked calls with them: nobody waits for these any more.
    for turn in &mut turns {
        turn.turn = TurnNo(1);
        turn.made.clear();
        turn.next = FrameNext::Failed(tasker_adaptor::Failure::new("Error", "x"));
    }
    let runs: Vec<TaskRunId> = turns.iter().map(|turn| turn.task_run).collect();
    for answer in storage.commit(Arc::from(turns)).await.unwrap() {
        answer.unwrap();
    }
    let ended = asked();
    for run in runs {
        assert_eq!(
            storage.run(run).await.unwrap().unwrap().status,
            RunStatus::Failed
        );
        for row in storage.stack_runs(run).await.unwrap() {
            assert_eq!(row.status, tasker_adaptor::StackStatus::Failed);
        }
    }
    [suspended - start, finished - suspended, ended - finished]
}

#[tokio::test]
async fn a_batch_of_any_size_is_as_many_statements() {
    let url = std::env::var("TASKER_TEST_POSTGRES_URL")
        .expect("TASKER_TEST_POSTGRES_URL is not set: run ./test.sh, which starts a PostgreSQL server for the tests");
    let name = format!("test_counts_{}", id().simple());
    let options = PostgresStorage::options(&url).schema(&name);
    let storage = options.pooler(Pooler::Off).connect().await.unwrap();
    let worker = register(&storage).await;
    let one = statements(&storage, worker, 1).await;
    let hundred = statements(&storage, worker, 100).await;
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let sql = format!("DROP SCHEMA {name} CASCADE");
    client.batch_execute(&sql).await.unwrap();
    assert_eq!(one, hundred);
}

/// Tables that do not grow with the runs that ended.
const SHORT: [&str; 3] = ["workers", "keystore", "tasker_schema"];

/// The indexes that ended history is in; the partial ones of queues are as short as what is open.
async fn long_indexes(client: &Client, schema: &str) -> HashSet<String> {
    let sql = "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'i' AND c.reltuples > 1000";
    let rows = client.query(sql, &[&schema]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// What makes a plan grow with history.
fn faults(plan: &Value, long: &HashSet<String>, statement: &str) -> Vec<String> {
    let mut found = Vec::new();
    look(&plan[0]["Plan"], long, &mut found);
    found
        .into_iter()
        .map(|fault| format!("{fault}\n    in {statement}"))
        .collect()
}

fn look(node: &Value, long: &HashSet<String>, found: &mut Vec<String>) {
    let said = |key: &str| node[key].as_str().unwrap_or_default();
    let (kind, table, index) = (said("Node Type"), said("Relation Name"), said("Index Name"));
    if kind == "Seq Scan" && !SHORT.contains(&table) {
        found.push(format!("all of {table} is read"));
    }
    if long.contains(index) && !is_keyed(said("Index Cond")) {
        // Those that come next in the index are all that is read, unless some of them are thrown away or sorted.
        let walks = !said("Filter").is_empty() || said("Index Cond").is_empty();
        if walks {
            found.push(format!(
                "{index} is walked: Index Cond {:?}, Filter {:?}",
                said("Index Cond"),
                said("Filter")
            ));
        }
    }
    let texts = node.as_object().into_iter().flat_map(|node| node.values());
    let hashes = |text: &Value| {
        text.as_str()
            .is_some_and(|text| text.contains("hashed SubPlan"))
    };
    if texts.into_iter().any(hashes) {
        found.push(format!(
            "a subquery is answered for all rows: {kind} on {table}"
        ));
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        look(child, long, found);
    }
}

/// Some column of the index has one value, or one of some, or a range is bounded below: `a < $1` alone has as many rows as there are.
fn is_keyed(condition: &str) -> bool {
    let signs = [" = ", " @> ", " >= ", " IS NULL"];
    signs.iter().any(|sign| condition.contains(sign))
}

/// The plan that serves any parameters.
async fn explain(client: &Client, statement: &str) -> Value {
    let count = (1..40)
        .take_while(|n| statement.contains(&format!("${n}")))
        .count();
    let nulls = vec!["NULL"; count].join(", ");
    let arguments = if count == 0 {
        String::new()
    } else {
        format!("({nulls})")
    };
    client
        .batch_execute(&format!("PREPARE looked_at AS {statement}"))
        .await
        .unwrap_or_else(|error| panic!("{error:?}: {statement}"));
    let sql = format!("EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE looked_at{arguments}");
    let answer = client.simple_query(&sql).await.unwrap();
    client.batch_execute("DEALLOCATE looked_at").await.unwrap();
    let text = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    serde_json::from_str(text.unwrap()).unwrap()
}

/// Uses every operation that an engine uses; answers the statements.
async fn workload(storage: &PostgresStorage) -> Vec<Arc<str>> {
    let worker = register(storage).await;
    tasks_and_keys(storage).await;
    let run = submit(storage, None).await;
    submit(storage, Some("key")).await;
    let again = submit(storage, Some("key")).await;
    assert_ne!(run.0, again.0);
    let frame = claim(storage, worker, Some(run.1)).await;
    let made = [call(), call(), call(), timer(), signal_wait()];
    let mut turn = turn_of(run, worker, frame);
    turn.made = made.to_vec();
    turn.made[0].claimed = true;
    turn.made[1].claimed = true;
    turn.logs = vec![LogLine {
        level: LogLevel::Info,
        message: "x".into(),
        data: None,
    }];
    commit(storage, &turn).await;
    let lease = Lease {
        worker,
        epoch: Epoch(1),
    };
    let ends: [CallFinish; 1] = [CallFinish {
        call: made[1].id,
        lease,
        end: CallEnd::Settled(Outcome::Completed(None)),
    }];
    storage
        .finish_calls(Arc::from(ends.to_vec()), NOW)
        .await
        .unwrap()[0]
        .unwrap();
    let mut second = turn_of(run, worker, frame);
    second.turn = TurnNo(1);
    second.dropped = vec![made[3].id];
    second.delivered = vec![
        Delivery {
            child: made[0].id,
            seq: CallSeq(1),
            source: DeliverySource::Local {
                epoch: Epoch(1),
                outcome: Outcome::Completed(None),
            },
        },
        Delivery {
            child: made[1].id,
            seq: CallSeq(2),
            source: DeliverySource::Recorded,
        },
    ];
    commit(storage, &second).await;
    let claimed = storage.claim_calls(all(worker)).await.unwrap();
    let held = Lease {
        worker,
        epoch: claimed[0].row.epoch,
    };
    storage
        .release_calls(
            &[ReleasedCall {
                call: claimed[0].row.id,
                lease: held,
                asked: true,
            }],
            NOW,
        )
        .await
        .unwrap()[0]
        .unwrap();
    let claimed = storage
        .claim_calls(Claim {
            only: Some(claimed[0].row.id),
            ..all(worker)
        })
        .await
        .unwrap();
    let held = Lease {
        worker,
        epoch: claimed[0].row.epoch,
    };
    let reason = tasker_adaptor::BlockedReason::OutcomeUnknown {
        service: "s".into(),
        path: "p".into(),
    };
    let blocks = CallFinish {
        call: claimed[0].row.id,
        lease: held,
        end: CallEnd::Blocked(reason),
    };
    storage
        .finish_calls(Arc::from(vec![blocks]), NOW)
        .await
        .unwrap()[0]
        .unwrap();
    let unblock = |decision| Unblock {
        run: run.0,
        row: None,
        decision,
        now: NOW,
    };
    assert_eq!(
        storage
            .unblock(unblock(UnblockDecision::Retry))
            .await
            .unwrap(),
        1
    );
    storage
        .unblock(unblock(UnblockDecision::supply(json("1"))))
        .await
        .unwrap();
    let signal = NewSignal {
        id: id(),
        run: run.0,
        name: "go".into(),
        payload: json("1"),
    };
    assert!(storage.send_signal(signal, NOW).await.unwrap());
    storage
        .release_frames(
            &[(
                run.1,
                Lease {
                    worker,
                    epoch: frame,
                },
            )],
            NOW,
        )
        .await
        .unwrap()[0]
        .unwrap();
    let frame = claim(storage, worker, Some(run.1)).await;
    storage
        .reload_frame(run.1, worker, NOW)
        .await
        .unwrap()
        .unwrap();
    let mut last = turn_of(run, worker, frame.next());
    last.turn = TurnNo(2);
    last.next = FrameNext::Completed(None);
    commit(storage, &last).await;
    rest(storage, worker, run.0).await;
    storage.inner.schema.used()
}

/// Reading, waiting, ending, cleaning.
async fn rest(storage: &PostgresStorage, worker: WorkerId, run: TaskRunId) {
    let sleeper = submit(storage, None).await;
    let frame = claim(storage, worker, None).await;
    let sleeper = storage
        .owned(worker, false)
        .await
        .unwrap()
        .first()
        .map_or(sleeper, |row| (row.task_run, row.id));
    let mut turn = turn_of(sleeper, worker, frame);
    turn.made = vec![timer(), call()];
    commit(storage, &turn).await;
    storage.next_due().await.unwrap();
    assert_eq!(
        storage
            .fire_timers(NOW.plus_millis(10_000), 0, 10)
            .await
            .unwrap(),
        1
    );
    storage.owned(worker, true).await.unwrap();
    storage.request_cancel(sleeper.0, NOW, NOW).await.unwrap();
    storage.overdue_cancels(NOW, 10).await.unwrap();
    let reaper = register(storage).await;
    let doomed = register(storage).await;
    storage.retire(worker, NOW).await.unwrap();
    storage
        .heartbeat(doomed, NOW.plus_millis(-9), 0)
        .await
        .unwrap();
    assert_eq!(
        storage.reap(reaper, NOW, 10).await.unwrap().workers,
        [doomed]
    );
    storage.cancel(sleeper.0, NOW).await.unwrap();
    storage.load(sleeper.1).await.unwrap().unwrap();
    storage.unread(sleeper.1).await.unwrap();
    storage.stack_run(sleeper.1).await.unwrap();
    storage.stack_runs(run).await.unwrap();
    storage.run(run).await.unwrap().unwrap();
    let task = Some(TaskName::new("demo"));
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    for statuses in [vec![], vec![RunStatus::Queued, RunStatus::Failed]] {
        for task in [None, task.clone()] {
            for labels in [BTreeMap::default(), labels.clone()] {
                let filter = RunFilter {
                    statuses: statuses.clone(),
                    task: task.clone(),
                    labels,
                    before: None,
                };
                storage.runs(&filter, 10).await.unwrap();
            }
        }
    }
    storage.append_logs(run, None, vec![], NOW).await.unwrap();
    storage.logs(run, LogCursor(0), 10).await.unwrap();
    storage.foldable(NOW, 10).await.unwrap();
    storage.backlog(NOW, 10).await.unwrap();
    storage.fold(run, vec![1], NOW).await.unwrap();
    storage.delete_folded_rows(1_000).await.unwrap();
    let retention = Retention {
        statuses: vec![RunStatus::Completed],
        ended_before: Timestamp::from_millis(2),
        max: 2,
    };
    assert_eq!(storage.delete_runs(&retention).await.unwrap(), 1);
}

async fn tasks_and_keys(storage: &PostgresStorage) {
    let task = NewTask {
        name: TaskName::new("demo"),
        version: TaskVersion::new("v1"),
        source: String::new(),
        modules: None,
        schema: Json::null(),
        options: Json::null(),
    };
    storage.publish(task.clone(), NOW).await.unwrap();
    storage.task(&task.name, None).await.unwrap();
    storage.task(&task.name, Some(&task.version)).await.unwrap();
    storage.sealed("a", "b").await.unwrap();
}

async fn register(storage: &PostgresStorage) -> WorkerId {
    let worker = WorkerId::from_uuid(id());
    storage
        .register(NewWorker {
            id: worker,
            name: String::new(),
            now: NOW,
            lease_ms: 60_000,
        })
        .await
        .unwrap();
    storage.server_time(NOW).await.unwrap();
    worker
}

async fn submit(storage: &PostgresStorage, key: Option<&str>) -> (TaskRunId, StackRunId) {
    let (run, root) = (TaskRunId::from_uuid(id()), StackRunId::from_uuid(id()));
    let new = NewTaskRun {
        id: run,
        root,
        task: TaskName::new("demo"),
        version: TaskVersion::new("v1"),
        input: Json::null(),
        idempotency_key: key.map(str::to_owned),
        request_hash: "h".into(),
        priority: 0,
        run_at: NOW,
        deadline: None,
        labels: BTreeMap::default(),
        correlation_id: None,
        traceparent: None,
    };
    let answers = storage.submit(vec![new], NOW).await.unwrap();
    (answers[0].as_ref().unwrap().id, root)
}

fn all(worker: WorkerId) -> Claim {
    Claim {
        worker,
        now: NOW,
        max: 1,
        only: None,
    }
}

async fn claim(storage: &PostgresStorage, worker: WorkerId, only: Option<StackRunId>) -> Epoch {
    let claimed = storage
        .claim_frames(Claim {
            only,
            ..all(worker)
        })
        .await
        .unwrap();
    claimed[0].row.epoch
}

async fn commit(storage: &PostgresStorage, turn: &TurnCommit) {
    storage.commit(Arc::from(vec![turn.clone()])).await.unwrap()[0].unwrap();
}

fn turn_of((run, frame): (TaskRunId, StackRunId), worker: WorkerId, epoch: Epoch) -> TurnCommit {
    TurnCommit {
        frame,
        task_run: run,
        turn: TurnNo(0),
        lease: Lease { worker, epoch },
        time: NOW,
        delivered: vec![],
        made: vec![],
        dropped: vec![],
        logs: vec![],
        next: FrameNext::Suspended,
    }
}

fn call() -> NewStackRun {
    let kind = MadeKind::Call {
        service: "s".into(),
        path: "p".into(),
        args: json("[]"),
        policy: None,
    };
    NewStackRun {
        id: StackRunId::from_uuid(id()),
        kind,
        claimed: false,
    }
}

fn timer() -> NewStackRun {
    let kind = MadeKind::Timer {
        path: "sleep".into(),
        args: json("1"),
        due_at: NOW,
    };
    NewStackRun {
        id: StackRunId::from_uuid(id()),
        kind,
        claimed: false,
    }
}

fn signal_wait() -> NewStackRun {
    let kind = MadeKind::Signal { name: "go".into() };
    NewStackRun {
        id: StackRunId::from_uuid(id()),
        kind,
        claimed: false,
    }
}
