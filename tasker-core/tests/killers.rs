//! Calls and turns that end the process of their worker, each time they are tried: real processes on one SQLite file, one after the other,
//! as a supervisor starts them. The guilty one is blocked, the innocent beside it end well.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures::FutureExt;
use serde_json::{Value, json};
use tasker_adaptor_sqlite::{SqliteStorage, rusqlite};
use tasker_core::adaptor::Maintenance;
use tasker_core::testing::Stub;
use tasker_core::{
    BlockedReason, Engine, Json, Limits, RunError, RunFilter, RunStatus, TaskRunId, UnblockDecision,
};

/// Where the processes meet.
const FOLDER: &str = "TASKER_KILLERS_FOLDER";
const INNOCENT: usize = 24;
/// Deaths after which the guilty one is blocked: more than the default of `poison_limit`.
const DEATHS: usize = 4;

const STEPS: &str = r"module.exports = async (input, { tools }) => {
    let n = input;
    for (let i = 0; i < 3; i++) n = await tools.svc.step(n + 1);
    return n;
}";
const CALLS: &str =
    "module.exports = async (input, { tools }) => tools.svc.abort(await tools.svc.step(input))";
/// Never ends its turn: the host notices that nothing moves any more, and aborts.
const SPINS: &str =
    "module.exports = async (input, { tools }) => { await tools.svc.step(input); for (;;) {} }";

/// One life of the host. Ends by itself when every run has ended or is blocked.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the program that the other tests start, again and again"]
async fn host() {
    let folder = std::env::var(FOLDER).unwrap();
    let folder = Path::new(&folder);
    let file = folder.join("tasker.db");
    let unbounded = Limits {
        turn_ticks: u64::MAX,
        turn_wall_ms: 60_000,
        ..Limits::default()
    };
    let engine = engine(&file, service(folder), unbounded).await;
    let mut ends = Vec::new();
    for run in all_runs(&engine).await {
        let handle = engine.run(run).await.unwrap();
        ends.push(async move {
            let _ = handle.result::<Value>().await;
        });
    }
    tokio::select! {
        _ = futures::future::join_all(ends) => {}
        () = a_turn_never_ends(&engine) => std::process::abort(),
    }
    engine.shutdown().await.unwrap();
}

/// Comes when the only thread of the VMs has worked for a second and more and has ended no turn. By its own time, where the system tells:
/// a busy machine or a slow disk is no turn that never ends.
async fn a_turn_never_ends(engine: &Engine) {
    let (mut turns, mut since) = (engine.stats().turns, vm_thread_worked());
    while vm_thread_worked().saturating_sub(since) < Duration::from_millis(1_500) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = engine.stats().turns;
        if now != turns {
            (turns, since) = (now, vm_thread_worked());
        }
    }
}

/// Time of the VM thread on a processor; where the system does not tell, half of all time.
fn vm_thread_worked() -> Duration {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        static START: std::sync::LazyLock<tokio::time::Instant> =
            std::sync::LazyLock::new(tokio::time::Instant::now);
        return START.elapsed() / 2;
    };
    let ticks = threads.filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
        let (name, rest) = stat.rsplit_once(") ")?;
        let times = rest.split(' ').skip(11).take(2);
        let ticks = times
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum::<u64>();
        name.contains("(tasker-vm").then_some(ticks)
    });
    Duration::from_millis(10 * ticks.sum::<u64>())
}

async fn engine(file: &Path, stub: Stub, limits: Limits) -> Engine {
    let storage = SqliteStorage::open(file).await.unwrap();
    Engine::builder()
        .storage(storage)
        .service(stub)
        .limits(limits)
        .threads(1)
        // Nobody loses it: a busy machine must not look like death. Whoever starts the processes ends the leases of the dead.
        .lease_ms(600_000)
        .poll_ms(50)
        .keep_rows_ms(u64::MAX)
        .start()
        .await
        .unwrap()
}

/// Each performed call is a line in a log that outlives the process.
fn service(folder: &Path) -> Stub {
    let log = folder.join("log");
    let performed = move |line: &str| {
        let mut options = std::fs::OpenOptions::new();
        let mut log = options.create(true).append(true).open(&log).unwrap();
        log.write_all(line.as_bytes()).unwrap();
    };
    let aborted = performed.clone();
    Stub::new("svc")
        .answer_later("step", move |call| {
            performed(&format!("step {}\n", call.idempotency_key));
            async move {
                // In flight when the process dies.
                tokio::time::sleep(Duration::from_millis(30)).await;
                call.arg::<Json>(0)
            }
            .boxed()
        })
        .answer("abort", move |call| {
            aborted(&format!("abort {}\n", call.idempotency_key));
            std::process::abort()
        })
}

async fn all_runs(engine: &Engine) -> Vec<TaskRunId> {
    let page = engine.runs(&RunFilter::default(), 1_000).await.unwrap();
    page.runs.into_iter().map(|run| run.id).collect()
}

/// Submits the innocent ones and, in their midst, the guilty one; answers its id.
async fn submit(folder: &Path, guilty: &str) -> TaskRunId {
    let storage = SqliteStorage::open(folder.join("tasker.db")).await.unwrap();
    let client = Engine::builder().storage(storage).client().await.unwrap();
    client.publish(STEPS).name("steps").await.unwrap();
    client.publish(guilty).name("guilty").await.unwrap();
    let mut id = None;
    for n in 0..INNOCENT {
        if n == INNOCENT / 4 {
            id = Some(client.submit("guilty", &0).await.unwrap().id());
        }
        client.submit("steps", &n).await.unwrap();
    }
    id.unwrap()
}

/// Starts hosts until one ends by itself; answers how many died.
fn supervise(folder: &Path) -> usize {
    for deaths in 0..3 * DEATHS {
        let life = Command::new(std::env::current_exe().unwrap())
            .args(["host", "--exact", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .output()
            .unwrap();
        if life.status.success() {
            return deaths;
        }
        let said = String::from_utf8_lossy(&life.stderr);
        assert!(!said.contains("panicked"), "{said}");
        let file = rusqlite::Connection::open(folder.join("tasker.db")).unwrap();
        file.execute("UPDATE workers SET expires_at = 0", [])
            .unwrap();
    }
    panic!("the guilty one is tried without end");
}

/// What must hold however the guilty one ended its workers; answers the engine that looked, and why the guilty one is blocked.
async fn judge(folder: &Path, guilty: TaskRunId) -> (Engine, BlockedReason) {
    let mended = Stub::new("svc");
    let engine = engine(&folder.join("tasker.db"), mended, Limits::default()).await;
    let blocked = RunFilter {
        statuses: vec![RunStatus::Blocked],
        ..RunFilter::default()
    };
    let blocked = engine.runs(&blocked, 100).await.unwrap().runs;
    let ids: Vec<TaskRunId> = blocked.iter().map(|run| run.id).collect();
    assert_eq!(ids, [guilty], "the guilty one alone is listed");
    for id in all_runs(&engine).await {
        if id != guilty {
            let handle = engine.run(id).await.unwrap();
            let input: usize = handle.info().await.unwrap().input.to().unwrap();
            assert_eq!(handle.result::<usize>().await.unwrap(), input + 3);
        }
    }
    let storage = SqliteStorage::open(folder.join("tasker.db")).await.unwrap();
    let violations = storage.audit().await.unwrap();
    assert!(violations.is_empty(), "{violations:?}");
    let log = std::fs::read_to_string(folder.join("log")).unwrap();
    let aborted: Vec<&str> = log
        .lines()
        .filter(|line| line.starts_with("abort"))
        .collect();
    let keys: BTreeSet<&&str> = aborted.iter().collect();
    assert!(keys.len() <= 1, "one idempotency key: {keys:?}");
    let reason = blocked[0].blocked.clone().unwrap();
    (engine, reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_aborts_its_process_is_blocked_and_the_calls_beside_it_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let guilty = submit(folder.path(), CALLS).await;
    assert_eq!(supervise(folder.path()), DEATHS);
    let (engine, reason) = judge(folder.path(), guilty).await;
    let expected = BlockedReason::PoisonedCall {
        service: "svc".to_owned(),
        path: "abort".to_owned(),
        take_overs: DEATHS as u32,
    };
    assert_eq!(reason, expected);
    let text = reason.to_string();
    assert!(
        text.contains("svc.abort") && text.contains("4 workers died"),
        "{text}"
    );
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    let aborts = log.lines().filter(|line| line.starts_with("abort")).count();
    assert_eq!(aborts, DEATHS, "asked once in each life");
    // Somebody mended the service.
    let changed = engine
        .unblock(guilty, UnblockDecision::Retry)
        .await
        .unwrap();
    assert_eq!(changed, 1);
    let handle = engine.run(guilty).await.unwrap();
    assert_eq!(handle.result::<Value>().await.unwrap(), json!(0));
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_ends_its_process_is_blocked_and_the_turns_beside_it_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let guilty = submit(folder.path(), SPINS).await;
    assert_eq!(supervise(folder.path()), DEATHS);
    let (engine, reason) = judge(folder.path(), guilty).await;
    assert_eq!(
        reason,
        BlockedReason::Poisoned {
            take_overs: DEATHS as u32
        }
    );
    // Under a guard the turn fails like any other that does not end.
    let changed = engine
        .unblock(guilty, UnblockDecision::Retry)
        .await
        .unwrap();
    assert_eq!(changed, 1);
    let handle = engine.run(guilty).await.unwrap();
    let error = handle.result::<Value>().await.unwrap_err();
    assert!(matches!(error, RunError::Failed(_)), "{error}");
    engine.shutdown().await.unwrap();
}
