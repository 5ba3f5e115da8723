//! A turn that is stuck in a native operation costs its host one thread until that operation ends, and nobody else anything.
//! The only test of its process, so that it can count threads.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]
#![expect(
    clippy::disallowed_methods,
    reason = "the watchdog is about real time, and so is its test"
)]

use std::time::{Duration, Instant};

use tasker_core::limits::Limits;
use tasker_core::{Engine, MemoryStorage, RunError, RunHandle, Wall, service_fn};

/// Guard of a turn.
const GUARD_MS: u64 = 200;
/// Frames that live on the thread that gets stuck.
const OTHERS: usize = 20;

/// One call into QuickJS that looks at nothing for seconds: it compares two thousand million characters, and allocates nothing.
const STUCK: &str = "module.exports = async function stuck(input, { tools }) {
    const text = 'ab'.repeat(60_000), pattern = 'ab'.repeat(30_000) + 'c';
    await tools.echo.m('before');
    for (;;) { try { return text.lastIndexOf(pattern); } catch {} }
};";
const OTHER: &str = "module.exports = async function other({ n }, { tools, signal }) {
    const before = await tools.echo.m(n);
    const word = await signal('go');
    return [before, word, await tools.echo.m(n + 1)];
};";

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_turn_costs_one_thread_until_its_operation_ends() {
    let engine = Engine::builder()
        .storage(MemoryStorage::new())
        .service(service_fn("echo", |call| async move {
            Ok(call.args().first().cloned().unwrap_or_default())
        }))
        .limits(Limits {
            turn_wall_ms: GUARD_MS,
            turn_ticks: u64::MAX,
            ..Limits::default()
        })
        .wall(Wall::in_process())
        .threads(1)
        .start()
        .await
        .unwrap();
    engine.publish(STUCK).name("stuck").await.unwrap();
    engine.publish(OTHER).name("other").await.unwrap();
    let mut others = Vec::new();
    for n in 0..OTHERS {
        let input = serde_json::json!({ "n": n });
        others.push(engine.submit("other", &input).await.unwrap());
    }
    for other in &others {
        waits_for_its_signal(other).await;
    }

    let begun = Instant::now();
    let stuck = engine.submit("stuck", &()).await.unwrap();
    let failure = match stuck.outcome().await {
        Err(RunError::Failed(failure)) => failure,
        other => panic!("expected a failure, got {other:?}"),
    };
    assert_eq!(failure.name, "LimitExceeded");
    assert_eq!(failure.code.as_deref(), Some("wall_clock"));
    for (n, other) in others.iter().enumerate() {
        other.signal("go", &"on").await.unwrap();
        let answer: (usize, String, usize) = other.result().await.unwrap();
        assert_eq!(answer, (n, "on".to_owned(), n + 1));
    }
    // On a machine that has other work too the stuck thread's own time counts.
    let passed = begun.elapsed().min(most_of_a_vm_thread());
    let late = passed.saturating_sub(Duration::from_millis(GUARD_MS));
    assert!(
        late < Duration::from_secs(1),
        "the others went on {late:?} after the guard"
    );

    if cfg!(target_os = "linux") {
        assert_eq!(
            vm_threads(),
            2,
            "the operation of the stuck turn should still be under way"
        );
        while vm_threads() > 1 {
            // By its own time: how much of it the machine gives a thread is not known.
            assert!(
                most_of_a_vm_thread() < Duration::from_mins(3),
                "the thread that was given up does not end with its operation"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    engine.shutdown().await.unwrap();
}

/// Until it has made its call and waits: its VM lives on the thread.
async fn waits_for_its_signal(run: &RunHandle) {
    let waiting = async {
        loop {
            let trace = run.trace().await.unwrap();
            if serde_json::to_string(&trace).unwrap().contains("\"go\"") {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(10), waiting)
        .await
        .expect("the frame comes to its signal");
}

fn vm_threads() -> usize {
    stats_of_vm_threads().len()
}

/// Time on a processor of the VM thread that had most; without bound where the system does not tell.
fn most_of_a_vm_thread() -> Duration {
    let ticks = stats_of_vm_threads().into_iter().map(|stat| {
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        let times = rest.split(' ').skip(11).take(2);
        times.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    });
    ticks.max().map_or(Duration::MAX, |ticks: u64| {
        Duration::from_millis(ticks * 10)
    })
}

fn stats_of_vm_threads() -> Vec<String> {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok())
        .filter(|stat| stat.contains("(tasker-vm"))
        .collect()
}
