//! One engine with both walls: reviewed tasks on its threads, all others in its children. On Linux, where it can be seen.
//!
//! Where a frame runs is shown by what its hanging costs: a sandbox that is killed and replaced, or a thread that is given up.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tasker_core::adaptor::Storage;
use tasker_core::testing::Stub;
use tasker_core::{Engine, Limits, MemoryStorage, RunError, RunHandle, TaskVersion, Wall};

#[path = "support/sandboxes.rs"]
mod sandboxes;

use sandboxes::{PATIENCE, alone, sandboxes_of, the_sandbox, until};

const SANDBOX: &str = env!("CARGO_BIN_EXE_tasker-sandbox");

/// What the operator has reviewed.
#[derive(Clone, Default)]
struct Reviewed(Arc<Mutex<HashSet<TaskVersion>>>);

impl Reviewed {
    fn wall(&self) -> Wall {
        let reviewed = Arc::clone(&self.0);
        children().in_process_for(move |_, version| reviewed.lock().unwrap().contains(version))
    }

    async fn publish(&self, engine: &Engine, source: &str) {
        let published = engine.publish(source).await.unwrap();
        self.0.lock().unwrap().insert(published.version);
    }
}

fn children() -> Wall {
    Wall::process().program(SANDBOX).children(1)
}

async fn engine(storage: &Arc<dyn Storage>, stub: &Stub, wall: Wall, parks: bool) -> Engine {
    Engine::builder()
        .shared_storage(Arc::clone(storage))
        .service(stub.clone())
        .limits(Limits {
            turn_wall_ms: 200,
            turn_ticks: u64::MAX,
            ..Limits::default()
        })
        .wall(wall)
        .threads(1)
        .park_always(parks)
        .start()
        .await
        .unwrap()
}

fn memory() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new())
}

/// A task that makes a call and then does not end its turn for a second or more, without asking for anything.
fn hangs(name: &str) -> String {
    format!(
        "module.exports = async function {name}(input, {{ tools }}) {{
            await tools.svc.echo('{name}');
            const text = 'ab'.repeat(60_000);
            return text.lastIndexOf('ab'.repeat(30_000) + 'c');
        }}"
    )
}

/// A task that waits for a word and says it again.
fn waits(name: &str) -> String {
    format!(
        "module.exports = async function {name}(n, {{ tools, signal }}) {{
            const first = await tools.svc.echo(n);
            return [first, await signal('go')];
        }}"
    )
}

async fn result(run: &RunHandle) -> Result<Value, RunError> {
    tokio::time::timeout(PATIENCE, run.result())
        .await
        .expect("the run never ended")
}

/// Threads that own VMs, those that were given up included: their ids. A thread that is given up gets a successor, whose id is new, and
/// stays so when the operation that it was given up for has ended.
fn vm_threads() -> BTreeSet<u32> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let of_vms = threads.filter_map(|thread| {
        let path = thread.ok()?.path();
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        let id = path.file_name()?.to_str()?.parse().ok()?;
        name.starts_with("tasker-vm").then_some(id)
    });
    of_vms.collect()
}

/// The threads of an engine that has some. A thread takes its name a moment after it was started.
async fn named_threads() -> BTreeSet<u32> {
    until("a thread has its name", || !vm_threads().is_empty()).await;
    vm_threads()
}

/// Waits until the sandbox is gone, or a thread has a successor; which of both.
async fn given_up(sandbox: u32, threads: &BTreeSet<u32>) -> Cost {
    let is_gone = || !sandboxes_of(std::process::id()).contains(&sandbox);
    let has_successor = || !vm_threads().is_subset(threads);
    until("something was given up", || is_gone() || has_successor()).await;
    match (is_gone(), has_successor()) {
        (true, false) => Cost::Sandbox,
        (false, true) => Cost::Thread,
        _ => panic!("both were given up"),
    }
}

/// Ends the engine, and waits for its threads and those that were given up: the next test looks at its own.
async fn over(engine: &Engine) {
    engine.shutdown().await.unwrap();
    until("its threads end", || vm_threads().is_empty()).await;
}

#[derive(Debug, PartialEq, Eq)]
enum Cost {
    Sandbox,
    Thread,
}

/// Runs a task that hangs, and says what that cost.
async fn cost(engine: &Engine, name: &str) -> Cost {
    let (sandbox, threads) = (the_sandbox().await, named_threads().await);
    let run = engine.submit(name, &()).await.unwrap();
    let Err(RunError::Failed(failure)) = result(&run).await else {
        panic!("{name} came to an end");
    };
    assert_eq!(failure.code.as_deref(), Some("wall_clock"), "{failure}");
    let cost = given_up(sandbox, &threads).await;
    until("its operation ends", || vm_threads().len() == threads.len()).await;
    cost
}

#[tokio::test(flavor = "multi_thread")]
async fn reviewed_tasks_run_in_process_and_all_others_in_a_child() {
    let _alone = alone().await;
    let (storage, stub, reviewed) = (memory(), Stub::new("svc"), Reviewed::default());
    let engine = engine(&storage, &stub, reviewed.wall(), false).await;
    for name in ["ours", "our_waits"] {
        let source = if name == "ours" {
            hangs(name)
        } else {
            waits(name)
        };
        reviewed.publish(&engine, &source).await;
    }
    for source in [hangs("theirs"), waits("their_waits")] {
        engine.publish(source).await.unwrap();
    }
    let mut waiting = Vec::new();
    for name in ["our_waits", "their_waits"] {
        waiting.push((name, engine.submit(name, &name).await.unwrap()));
    }
    until("both wait", || stub.performed("echo") == 2).await;

    assert_eq!(cost(&engine, "theirs").await, Cost::Sandbox);
    assert_eq!(cost(&engine, "ours").await, Cost::Thread);

    // Whoever may publish under the name does not weaken the wall.
    let source = format!("// not what was reviewed\n{}", hangs("ours"));
    engine.publish(source).await.unwrap();
    assert_eq!(cost(&engine, "ours").await, Cost::Sandbox);

    // Those that waited beside them go on by replay.
    for (name, run) in waiting {
        run.signal("go", &"on").await.unwrap();
        assert_eq!(result(&run).await.unwrap(), json!([name, "on"]));
    }
    assert_eq!(stub.performed("echo"), 5, "a call was made twice");
    let found = engine.audit().await.unwrap();
    assert!(found.is_empty(), "{found:?}");
    over(&engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_task_runs_behind_its_own_wall() {
    let _alone = alone().await;
    let (storage, stub, reviewed) = (memory(), Stub::new("svc"), Reviewed::default());
    let engine = engine(&storage, &stub, reviewed.wall(), false).await;
    let parent = |name: &str, child: &str| {
        format!(
            "module.exports = async function {name}(input, {{ tools }}) {{
                return tools.tasks.execute('{child}').then(() => 'ended', (error) => error.code);
            }}"
        )
    };
    reviewed.publish(&engine, &hangs("ours")).await;
    engine.publish(hangs("theirs")).await.unwrap();
    reviewed
        .publish(&engine, &parent("our_parent", "theirs"))
        .await;
    engine
        .publish(parent("their_parent", "ours"))
        .await
        .unwrap();

    for (name, expected) in [
        ("our_parent", Cost::Sandbox),
        ("their_parent", Cost::Thread),
    ] {
        let (sandbox, threads) = (the_sandbox().await, named_threads().await);
        let run = engine.submit(name, &()).await.unwrap();
        assert_eq!(result(&run).await.unwrap(), json!("wall_clock"), "{name}");
        assert_eq!(given_up(sandbox, &threads).await, expected, "{name}");
    }
    over(&engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_frame_is_taken_up_behind_its_wall() {
    let _alone = alone().await;
    let (storage, stub, reviewed) = (memory(), Stub::new("svc"), Reviewed::default());
    // Each call parks the frame: the turn that hangs is the first after a replay.
    let engine = engine(&storage, &stub, reviewed.wall(), true).await;
    reviewed.publish(&engine, &hangs("ours")).await;
    engine.publish(hangs("theirs")).await.unwrap();
    assert_eq!(cost(&engine, "ours").await, Cost::Thread);
    assert_eq!(cost(&engine, "theirs").await, Cost::Sandbox);
    assert_eq!(stub.performed("echo"), 2);
    over(&engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_takes_a_run_over_follows_its_own_rule() {
    let _alone = alone().await;
    let (storage, stub, reviewed) = (memory(), Stub::new("svc"), Reviewed::default());
    let first = engine(&storage, &stub, reviewed.wall(), false).await;
    for name in ["ours", "theirs"] {
        // It hangs when it is told to.
        let source = hangs(name)
            .replace("{ tools }", "{ tools, signal }")
            .replace("const text", "await signal('go'); const text");
        if name == "ours" {
            reviewed.publish(&first, &source).await;
        } else {
            first.publish(source).await.unwrap();
        }
    }
    let mut runs = Vec::new();
    for name in ["ours", "theirs", "ours", "theirs"] {
        runs.push(first.submit(name, &()).await.unwrap().id());
    }
    until("all wait", || stub.performed("echo") == 4).await;
    over(&first).await;

    let fails = async |engine: &Engine, run| {
        let run = engine.run(run).await.unwrap();
        run.signal("go", &()).await.unwrap();
        let Err(RunError::Failed(failure)) = result(&run).await else {
            panic!("it came to an end");
        };
        assert_eq!(failure.code.as_deref(), Some("wall_clock"), "{failure}");
    };
    // Nothing was reviewed here: all are strangers.
    let strict = engine(&storage, &stub, children(), false).await;
    for run in &runs[..2] {
        let sandbox = the_sandbox().await;
        fails(&strict, *run).await;
        until("another sandbox", || sandboxes::stat(sandbox).is_none()).await;
        assert_eq!(vm_threads(), BTreeSet::new());
    }
    strict.shutdown().await.unwrap();
    // All are trusted here: its operator says so, and no task can say otherwise.
    let trusting = engine(&storage, &stub, Wall::in_process(), false).await;
    for run in &runs[2..] {
        let threads = named_threads().await;
        fails(&trusting, *run).await;
        until("a thread was given up", || {
            !vm_threads().is_subset(&threads)
        })
        .await;
    }
    assert_eq!(stub.performed("echo"), 4, "a call was made twice");
    over(&trusting).await;
}
