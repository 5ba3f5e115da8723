//! A machine that is busy with something else, or that is stopped for a while, fails nobody's turn. On Linux, where the guard counts
//! what a turn has really had. The only tests of their process, so that threads and children are their own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tasker_core::testing::Stub;
use tasker_core::{Engine, Limits, MemoryStorage, RunError, RunHandle, Wall};

#[path = "support/sandboxes.rs"]
mod sandboxes;

use sandboxes::{PATIENCE, alone, cpu, now, signal, stat, the_sandbox, until};

const SANDBOX: &str = env!("CARGO_BIN_EXE_tasker-sandbox");
/// Guard of a turn.
const GUARD: Duration = Duration::from_millis(GUARD_MS);
const GUARD_MS: u64 = 1_000;

async fn engine(wall: Wall, stub: &Stub) -> Engine {
    let engine = Engine::builder()
        .storage(MemoryStorage::new())
        .service(stub.clone())
        .limits(Limits {
            turn_wall_ms: GUARD_MS,
            turn_ticks: u64::MAX,
            ..Limits::default()
        })
        .wall(wall)
        .threads(1)
        .start()
        .await
        .unwrap();
    for source in [
        "module.exports = async function works(steps, { tools }) {
            await tools.svc.echo(steps);
            let sum = 0;
            for (let i = 0; i < steps; i++) sum = (sum + i) % 1000;
            return 'worked';
        }",
        "module.exports = async function hangs(input, { tools }) {
            await tools.svc.echo('hangs');
            Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1);
        }",
    ] {
        engine.publish(source).await.unwrap();
    }
    engine
}

async fn result(run: &RunHandle) -> Result<Value, RunError> {
    tokio::time::timeout(PATIENCE, run.result())
        .await
        .expect("the run never ended")
}

async fn hangs(engine: &Engine) {
    let run = engine.submit("hangs", &()).await.unwrap();
    match result(&run).await {
        Err(RunError::Failed(failure)) => {
            assert_eq!(failure.code.as_deref(), Some("wall_clock"), "{failure}");
        }
        other => panic!("a loop came to an end: {other:?}"),
    }
}

#[tokio::test]
async fn a_sandbox_that_was_stopped_for_longer_than_the_guard_goes_on() {
    let _alone = alone().await;
    let stub = Stub::new("svc");
    let engine = engine(Wall::process().program(SANDBOX).children(1), &stub).await;
    let sandbox = the_sandbox().await;
    let before = cpu(sandbox);
    let run = engine.submit("works", &3_000_000).await.unwrap();
    until("the turn is under way", || {
        stub.performed("echo") == 1 && cpu(sandbox) > before + 2
    })
    .await;
    signal(sandbox, "STOP");
    let stopped = now();
    // Longer than after which the sandbox would have been killed.
    until("it was stopped for long enough", || {
        now() - stopped > GUARD * 3
    })
    .await;
    assert_eq!(stat(sandbox).unwrap()[0], "T");
    signal(sandbox, "CONT");
    assert_eq!(result(&run).await.unwrap(), json!("worked"));
    assert_eq!(the_sandbox().await, sandbox);
    hangs(&engine).await;
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_the_machine_has_no_time_for_goes_on() {
    let _alone = alone().await;
    let stub = Stub::new("svc");
    let engine = engine(Wall::in_process(), &stub).await;
    let thread = vm_thread().await;
    // A tenth of a guard's work, as this machine does it.
    let before = had_ms(thread);
    let run = engine.submit("works", &4_000_000).await.unwrap();
    assert_eq!(result(&run).await.unwrap(), json!("worked"));
    let trial_ms = (had_ms(thread) - before).max(10);
    let steps = 4_000_000 * GUARD_MS / 10 / trial_ms;

    renice(thread);
    let busy = Busy::start();
    let (since, before) = (now(), had_ms(thread));
    let run = engine.submit("works", &steps).await.unwrap();
    until("its guard would be over by the clock", || {
        now() - since > GUARD * 3 / 2
    })
    .await;
    let had = had_ms(thread) - before;
    assert!(
        !run.status().await.unwrap().is_terminal() && had < GUARD_MS,
        "it was not starved: {had} ms"
    );
    drop(busy);
    assert_eq!(result(&run).await.unwrap(), json!("worked"));
    assert_eq!(vm_threads(), [thread], "its thread was given up");
    hangs(&engine).await;
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_the_machine_has_no_time_for_is_checked_all_the_same() {
    let _alone = alone().await;
    let engine = engine(Wall::in_process(), &Stub::new("svc")).await;
    let _busy = Busy::start();
    // Each `let` is looked for among all before it: half as many again take twice the time.
    let mut names = 1_000;
    let mut took = Duration::ZERO;
    while took < GUARD * 3 / 2 {
        names += names / 2;
        let text: Vec<_> = (0..names).map(|n| format!("let name{n};")).collect();
        let since = now();
        let published = engine.publish(format!("module.exports = () => {{{}}}", text.concat()));
        published.name("long").await.unwrap();
        took = now() - since;
    }
    engine.shutdown().await.unwrap();
}

/// The thread of the only engine: those of the tests before have ended, and it has its name.
async fn vm_thread() -> u32 {
    until("one thread has VMs", || vm_threads().len() == 1).await;
    vm_threads()[0]
}

fn vm_threads() -> Vec<u32> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let is_ours = |id: &u32| {
        let name = std::fs::read_to_string(format!("/proc/self/task/{id}/comm"));
        name.is_ok_and(|name| name.starts_with("tasker-vm"))
    };
    threads
        .filter_map(|thread| thread.unwrap().file_name().to_str()?.parse().ok())
        .filter(is_ours)
        .collect()
}

/// Time of one thread of this process on a processor, in milliseconds.
fn had_ms(thread: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let times = rest.split(' ').skip(11).take(2);
    let ticks: u64 = times.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    ticks * 10
}

/// Gives a thread a smaller part of the machine.
fn renice(thread: u32) {
    let done = Command::new("renice")
        .args(["-n", "5", "-p", &thread.to_string()])
        .output();
    assert!(done.unwrap().status.success());
}

/// Threads that keep every core busy until it is dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().unwrap().get();
        for _ in 0..cores * 16 {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(over)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
