//! What an engine bears: a database that is away, clocks that are wrong, frames that end their workers, cancels that race.
//!
//! Runs in every mode of `TASKER_TEST_MODE`, like `engine.rs`.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;
use support::{sound, until};
use tasker_core::adaptor::{FaultAction, FaultStorage, Timestamp};
use tasker_core::testing::{Stub, TestClock, TestEngine};
use tasker_core::{
    BlockedReason, Clock, Drive, Engine, Json, MemoryStorage, RunError, RunHandle, RunStatus,
    Storage, UnblockDecision,
};
use tokio::sync::watch;

const SUM: &str = r"module.exports = async (input, { tools }) => {
    let n = 0;
    for (let i = 0; i < 5; i++) n = await tools.svc.step(n + 1);
    return n;
}";

const LEASE: i64 = 30_000;
const MOMENT: std::time::Duration = std::time::Duration::from_millis(5);

/// A service that waits at its `nth` call (from 0) until the test lets it go or the call is cancelled.
fn hangs_at(nth: usize) -> (Stub, watch::Sender<bool>) {
    let (release, held) = watch::channel(false);
    let stub = Stub::new("svc");
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let stub = stub.answer_later("step", move |call| {
        let mut held = held.clone();
        let mine = count.fetch_add(1, Ordering::SeqCst);
        async move {
            if mine == nth {
                tokio::select! {
                    _ = held.wait_for(|go| *go) => {}
                    () = call.cancellation.cancelled() => {}
                }
            }
            call.arg::<Json>(0)
        }
        .boxed()
    });
    (stub, release)
}

/// Moves the clock in steps; after each the engines come to rest, but for services that take their time. One that cannot
/// (it wants more than its window holds, or waits for a database that is away) is given a moment, so that the clock does not outrun
/// the threads of its VMs.
async fn pass(clock: &TestClock, millis: i64, engines: &[&TestEngine]) {
    for _ in 0..millis / 500 {
        clock.advance(500);
        let_others_run().await;
        for test in engines {
            let _ = tokio::time::timeout(MOMENT, test.engine().quiet_but_calls()).await;
        }
    }
}

/// Whoever was woken gets a turn. (The runtime of these tests has one thread.)
async fn let_others_run() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_database_that_is_away_for_longer_than_a_lease_loses_nothing() {
    for away in ["before the answer", "while the answer is recorded"] {
        let faults = FaultStorage::over(Arc::new(MemoryStorage::new()));
        let control = faults.control().clone();
        let (stub, release) = hangs_at(2);
        let test = TestEngine::on(Arc::new(faults), TestClock::default())
            .stub(&stub)
            .start()
            .await;
        test.publish(SUM, "sum").await;
        let handle = test.submit("sum", &()).await;
        until(|| stub.performed("step") == 3).await;
        if away == "before the answer" {
            control.kill();
            pass(test.clock(), 2 * LEASE, &[&test]).await;
            release.send(true).unwrap();
        } else {
            control.kill();
            release.send(true).unwrap();
            pass(test.clock(), 2 * LEASE, &[&test]).await;
        }
        let health = test.engine().health();
        assert!(health.storage.is_some(), "nobody would know: {health:?}");
        control.revive();
        pass_until_ended(test.clock(), &handle, &[&test]).await;
        assert_eq!(handle.result::<u32>().await.unwrap(), 5);
        assert_eq!(stub.performed("step"), 5, "{away}: nothing was repeated");
        assert!(test.engine().health().storage.is_none(), "it has recovered");
        sound(&test).await;
    }
}

/// Lets go of the calls that hang: every run of [`SUM`] ends, and each of its five calls was performed once, by whichever worker.
async fn all_end_without_repeats(
    clock: &TestClock,
    handles: &[RunHandle],
    stubs: &[(Stub, watch::Sender<bool>)],
    engines: &[&TestEngine],
) {
    for (_, release) in stubs {
        release.send(true).unwrap();
    }
    for handle in handles {
        pass_until_ended(clock, handle, engines).await;
        assert_eq!(handle.result::<u32>().await.unwrap(), 5);
    }
    let performed: usize = stubs.iter().map(|(stub, _)| stub.performed("step")).sum();
    let wanted = 5 * handles.len();
    assert_eq!(
        performed, wanted,
        "nothing was taken over, nothing repeated"
    );
}

/// Engines on one database whose clocks are wrong, and a clock of the database's own.
#[tokio::test]
async fn workers_whose_clocks_are_an_hour_off_keep_their_leases() {
    let clock = TestClock::default();
    let faults = FaultStorage::over(Arc::new(MemoryStorage::new()));
    let server = clock.clone();
    faults
        .control()
        .server_clock(move || Timestamp::from_millis(server.millis()));
    let storage: Arc<dyn Storage> = Arc::new(faults);
    let mut tests = Vec::new();
    let mut stubs = Vec::new();
    for skew in [0, 3_600_000, -3_600_000] {
        let (stub, release) = hangs_at(0);
        let wrong = clock.skewed(skew);
        let test = TestEngine::on(Arc::clone(&storage), clock.clone())
            .stub(&stub)
            .with(|builder| builder.clock(Arc::new(wrong)).window(1).calls_in_flight(1))
            .start()
            .await;
        tests.push(test);
        stubs.push((stub, release));
    }
    tests[0].publish(SUM, "sum").await;
    let mut handles = Vec::new();
    for _ in 0..12 {
        handles.push(tests[0].submit("sum", &()).await);
    }
    // Each holds a call for much longer than a lease, and none is taken over by another.
    until(|| stubs.iter().all(|(stub, _)| stub.performed("step") >= 1)).await;
    let engines: Vec<&TestEngine> = tests.iter().collect();
    pass(&clock, 3 * LEASE, &engines).await;
    all_end_without_repeats(&clock, &handles, &stubs, &engines).await;
    // The timer of a run is due by the database's clock, whoever fires it.
    tests[1]
        .publish(
            "module.exports = async (i, { tools }) => { await tools.sleep(600_000); return 1 }",
            "sleeps",
        )
        .await;
    let handle = tests[1].submit("sleeps", &()).await;
    pass(&clock, 590_000, &engines).await;
    assert!(!handle.status().await.unwrap().is_terminal(), "too early");
    pass_until_ended(&clock, &handle, &engines).await;
}

async fn pass_until_ended(clock: &TestClock, handle: &RunHandle, engines: &[&TestEngine]) {
    for _ in 0..1_000 {
        if handle.status().await.unwrap().is_terminal() {
            return;
        }
        pass(clock, 500, engines).await;
    }
    panic!("the run never ended: {:?}", handle.info().await);
}

/// The one clock of a machine, which somebody sets.
#[derive(Clone)]
struct HostClock {
    test: TestClock,
    set_by: Arc<AtomicI64>,
}

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.test.millis() + self.set_by.load(Ordering::SeqCst))
    }

    fn monotonic_ms(&self) -> i64 {
        self.test.monotonic_ms()
    }

    fn sleep(&self, millis: u64) -> BoxFuture<'static, ()> {
        self.test.sleep(millis)
    }
}

#[tokio::test]
async fn a_clock_that_is_set_takes_no_living_worker_over_and_leaves_no_dead_one() {
    for jump in [3_600_000, -3_600_000] {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let host = HostClock {
            test: TestClock::default(),
            set_by: Arc::default(),
        };
        let start = async |stub: &Stub| {
            let clock = host.clone();
            TestEngine::on(Arc::clone(&storage), host.test.clone())
                .stub(stub)
                .with(|builder| builder.clock(Arc::new(clock)))
                .start()
                .await
        };
        let (first_stub, release) = hangs_at(2);
        let first = start(&first_stub).await;
        first.publish(SUM, "sum").await;
        let handle = first.submit("sum", &()).await;
        until(|| first_stub.performed("step") == 3).await;
        let second_stub = Stub::new("svc");
        let second = start(&second_stub).await;
        pass(&host.test, LEASE / 2, &[&first, &second]).await;
        host.set_by.fetch_add(jump, Ordering::SeqCst);
        pass(&host.test, 3 * LEASE, &[&first, &second]).await;
        release.send(true).unwrap();
        if jump < 0 {
            // What was ready by the old time is ready when the clock shows that time again.
            first.engine().quiet().await;
            host.test.advance(-jump);
        }
        pass_until_ended(&host.test, &handle, &[&first, &second]).await;
        assert_eq!(handle.result::<u32>().await.unwrap(), 5);
        let performed = first_stub.performed("step") + second_stub.performed("step");
        assert_eq!(performed, 5, "set by {jump} ms: it was taken over");

        // A worker that died just before the clock was set does not hold its rows for an hour more.
        let (third_stub, _never) = hangs_at(0);
        let third = start(&third_stub).await;
        second.engine().shutdown().await.unwrap();
        first.engine().shutdown().await.unwrap();
        let handle = third.submit("sum", &()).await;
        until(|| third_stub.performed("step") == 1).await;
        third.engine().abandon();
        host.set_by.fetch_add(jump, Ordering::SeqCst);
        let fourth_stub = Stub::new("svc");
        let fourth = start(&fourth_stub).await;
        pass(&host.test, 4 * LEASE, &[&fourth]).await;
        let rows = storage.stack_runs(handle.id()).await.unwrap();
        let call = rows.iter().find(|row| row.path == "step").unwrap();
        assert!(
            call.in_doubt,
            "set by {jump} ms: it was not taken over: {call:?}"
        );
        if jump < 0 {
            fourth.engine().quiet().await;
            host.test.advance(-jump);
        }
        let handle = fourth.engine().run(handle.id()).await.unwrap();
        pass_until_ended(&host.test, &handle, &[&fourth]).await;
        assert_eq!(handle.result::<u32>().await.unwrap(), 5);
        sound(&fourth).await;
    }
}

/// Whichever of its parts asks the database for its time first sees that the clock was set; all of them must know.
#[tokio::test]
async fn a_worker_whose_heartbeat_saw_the_clock_being_set_judges_nobody_before_it_is_answered() {
    let mut seen_by_heartbeat = 0;
    for before in (0..10_000).step_by(500) {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let host = HostClock {
            test: TestClock::default(),
            set_by: Arc::default(),
        };
        let start = async |stub: &Stub| {
            let clock = host.clone();
            let faults = FaultStorage::over(Arc::clone(&storage));
            let control = faults.control().clone();
            let test = TestEngine::on(Arc::new(faults), host.test.clone())
                .stub(stub)
                .with(|builder| builder.clock(Arc::new(clock)))
                .start()
                .await;
            (test, control)
        };
        let (first_stub, release) = hangs_at(2);
        let (first, first_control) = start(&first_stub).await;
        first.publish(SUM, "sum").await;
        let handle = first.submit("sum", &()).await;
        until(|| first_stub.performed("step") == 3).await;
        let second_stub = Stub::new("svc");
        let (second, second_control) = start(&second_stub).await;
        let both = [&first, &second];
        pass(&host.test, before, &both).await;

        // No heartbeat gets through for a while, so the first worker's lease is one of the old time.
        for control in [&first_control, &second_control] {
            control.on_call(|call| match call.method {
                "heartbeat" => FaultAction::Delay,
                _ => FaultAction::Pass,
            });
        }
        host.set_by.fetch_add(3_600_000, Ordering::SeqCst);
        let asked = second_control.calls();
        pass(&host.test, LEASE / 2, &both).await;
        let since = &second_control.methods()[asked..];
        let first_look = since.iter().position(|method| *method == "server_time");
        if first_look.is_some_and(|at| since.get(at + 1) == Some(&"heartbeat")) {
            seen_by_heartbeat += 1;
        }
        for control in [&first_control, &second_control] {
            control.on_call(|_| FaultAction::Pass);
            control.release();
        }
        pass(&host.test, 2 * LEASE, &both).await;
        release.send(true).unwrap();
        pass_until_ended(&host.test, &handle, &both).await;
        assert_eq!(handle.result::<u32>().await.unwrap(), 5);
        let performed = first_stub.performed("step") + second_stub.performed("step");
        assert_eq!(performed, 5, "set after {before} ms: it was taken over");
    }
    assert!(seen_by_heartbeat > 0, "the case was not met");
}

/// Stopped processes that go on, a machine that had time for none of them: whoever comes first must not take the others for dead.
#[tokio::test]
async fn workers_that_all_stood_still_for_longer_than_a_lease_take_nobody_over() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let clock = TestClock::default();
    let mut tests = Vec::new();
    let mut stubs = Vec::new();
    let mut controls = Vec::new();
    for _ in 0..3 {
        let (stub, release) = hangs_at(0);
        let faults = FaultStorage::over(Arc::clone(&storage));
        controls.push(faults.control().clone());
        let test = TestEngine::on(Arc::new(faults), clock.clone())
            .stub(&stub)
            .with(|builder| builder.window(1).calls_in_flight(1))
            .start()
            .await;
        tests.push(test);
        stubs.push((stub, release));
    }
    let engines: Vec<&TestEngine> = tests.iter().collect();
    tests[0].publish(SUM, "sum").await;
    let mut handles = Vec::new();
    for _ in 0..6 {
        handles.push(tests[0].submit("sum", &()).await);
    }
    until(|| stubs.iter().all(|(stub, _)| stub.performed("step") >= 1)).await;
    // First nobody's heartbeat gets through, then that of one worker, which looks for dead ones more than once before the others are
    // heard of.
    for control in &controls {
        control.on_call(|call| match call.method {
            "heartbeat" => FaultAction::Delay,
            _ => FaultAction::Pass,
        });
    }
    clock.advance(LEASE * 3 / 2);
    pass(&clock, LEASE / 4, &engines).await;
    for woken in [0..1, 1..3] {
        for control in &controls[woken] {
            control.on_call(|_| FaultAction::Pass);
            assert!(control.release() > 0, "its heartbeat was not held back");
        }
        pass(&clock, LEASE / 2, &engines).await;
    }
    all_end_without_repeats(&clock, &handles, &stubs, &engines).await;
}

#[tokio::test]
async fn a_cancel_reaches_nested_tasks_timers_and_calls_in_flight() {
    let (stub, _never) = hangs_at(0);
    let clean = Stub::new("clean");
    let test = TestEngine::builder().stub(&stub).stub(&clean).start().await;
    test.publish(
        r"module.exports = async (input, { tools }) => {
            try { return await Promise.all([tools.svc.step(1), tools.sleep(3_600_000)]) }
            catch (error) { await tools.clean.child(error.name); throw error }
        }",
        "child",
    )
    .await;
    test.publish(
        r"module.exports = async (input, { tools }) => {
            try { return await tools.tasks.execute('child') }
            finally { await tools.clean.parent() }
        }",
        "parent",
    )
    .await;
    let handle = test.submit("parent", &()).await;
    until(|| stub.performed("step") == 1).await;
    test.engine().cancel(handle.id()).await.unwrap();
    let error = test.finish::<Value>(&handle).await.unwrap_err();
    assert!(matches!(error, RunError::Cancelled), "{error}");
    let cleaned: Vec<_> = clean
        .ledger()
        .into_iter()
        .map(|call| (call.method, call.args))
        .collect();
    assert!(
        cleaned.contains(&("child".to_owned(), vec![r#""CancelledError""#.to_owned()])),
        "{cleaned:?}"
    );
    assert!(
        cleaned.iter().any(|(method, _)| method == "parent"),
        "{cleaned:?}"
    );
    test.engine().quiet().await;
    let rows = test.storage().stack_runs(handle.id()).await.unwrap();
    let open: Vec<_> = rows
        .iter()
        .filter(|row| !row.status.is_terminal())
        .map(|row| (row.kind, row.seq, row.path.clone(), row.status))
        .collect();
    assert!(open.is_empty(), "{open:?}");
    sound(&test).await;
}

#[tokio::test]
async fn a_task_that_will_not_end_is_ended_after_its_grace() {
    let stub = Stub::new("svc");
    let test = TestEngine::builder()
        .stub(&stub)
        .with(|builder| builder.cancel_grace_ms(2_000))
        .start()
        .await;
    test.publish(
        r"module.exports = async (input, { tools }) => {
            for (;;) { try { await tools.sleep(500); await tools.svc.step(1) } catch {} }
        }",
        "stays",
    )
    .await;
    let handle = test.submit("stays", &()).await;
    test.advance(1_200).await;
    assert!(stub.performed("step") >= 1);
    handle.cancel().await.unwrap();
    let started = test.clock().millis();
    let error = test.finish::<Value>(&handle).await.unwrap_err();
    assert!(matches!(error, RunError::Cancelled), "{error}");
    let took = test.clock().millis() - started;
    assert!((1_500..=LEASE).contains(&took), "ended after {took} ms");
    let performed = stub.performed("step");
    test.advance(10_000).await;
    assert_eq!(stub.performed("step"), performed, "it really ended");
    sound(&test).await;
}

/// Cancel, complete and fail race from two workers: one end wins, and everybody says the same one.
#[tokio::test(flavor = "multi_thread")]
async fn cancel_complete_and_fail_race_to_one_end() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let engine = async |window| {
        Engine::builder()
            .shared_storage(Arc::clone(&storage))
            .service(Stub::new("svc"))
            .window(window)
            .poll_ms(20)
            .cancel_grace_ms(50)
            .keep_rows_ms(u64::MAX)
            .start()
            .await
            .unwrap()
    };
    let (first, second) = (engine(4).await, engine(4).await);
    first
        .publish(
            r"module.exports = async (n, { tools }) => {
                for (let i = 0; i < n % 7; i++) await tools.svc.step(i);
                if (n % 3 === 0) throw new Error('no');
                return n;
            }",
        )
        .name("ends")
        .await
        .unwrap();
    let mut ends = std::collections::BTreeMap::new();
    let mut racing = Vec::new();
    for n in 0..300_u32 {
        let (first, second) = (first.clone(), second.clone());
        racing.push(tokio::spawn(async move {
            let handle = first.submit("ends", &n).await.unwrap();
            for _ in 0..(n % 40) {
                tokio::task::yield_now().await;
            }
            let cancelling = second.cancel(handle.id());
            let (cancelled, result) = tokio::join!(cancelling, handle.result::<Value>());
            cancelled.unwrap();
            let row = second.run(handle.id()).await.unwrap();
            (row.status().await.unwrap(), result)
        }));
    }
    for race in racing {
        let (status, result) = tokio::time::timeout(std::time::Duration::from_mins(10), race)
            .await
            .expect("a run never ended")
            .unwrap();
        let said = match result {
            Ok(_) => RunStatus::Completed,
            Err(RunError::Cancelled) => RunStatus::Cancelled,
            Err(RunError::Failed(_)) => RunStatus::Failed,
            Err(other) => panic!("{other}"),
        };
        assert_eq!(status, said, "two ends of one run");
        *ends.entry(status).or_insert(0) += 1;
    }
    assert!(ends[&RunStatus::Cancelled] > 0, "{ends:?}");
    first.quiet().await;
    second.quiet().await;
    assert_eq!(storage.audit().await.unwrap(), Vec::new());
}

/// Starts workers one after the other on these rows; each dies at the first turn that it tries to commit.
async fn die(storage: &Arc<dyn Storage>, clock: &TestClock, times: usize) {
    for _ in 0..times {
        let deadly = FaultStorage::over(Arc::clone(storage));
        deadly.control().on_call(|call| match call.method {
            "commit" => FaultAction::Die,
            _ => FaultAction::Pass,
        });
        let control = deadly.control().clone();
        let test = TestEngine::on(Arc::new(deadly), clock.clone())
            .start()
            .await;
        for _ in 0..400 {
            if control.is_dead() {
                break;
            }
            pass(clock, 500, &[&test]).await;
        }
        assert!(control.is_dead(), "the frame was not tried again");
        test.engine().abandon();
    }
}

#[tokio::test]
async fn a_frame_that_ends_its_worker_again_and_again_is_blocked_and_others_go_on() {
    for (deaths, is_blocked) in [(3, false), (4, true)] {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let clock = TestClock::default();
        let client = TestEngine::on(Arc::clone(&storage), clock.clone())
            .with(|builder| builder.drive(Drive::Client))
            .start()
            .await;
        client.publish(SUM, "sum").await;
        let guilty = client.submit("sum", &()).await.id();
        die(&storage, &clock, deaths).await;
        let stub = Stub::new("svc");
        let test = TestEngine::on(Arc::clone(&storage), clock.clone())
            .stub(&stub)
            .with(|builder| builder.poison_limit(3))
            .start()
            .await;
        let handle = test.engine().run(guilty).await.unwrap();
        if is_blocked {
            let error = test.finish::<u32>(&handle).await.unwrap_err();
            assert!(
                matches!(
                    error,
                    RunError::Blocked(BlockedReason::Poisoned { take_overs: 4 })
                ),
                "{error}"
            );
            assert_eq!(stub.performed("step"), 0, "it was not tried again");
            let other = test.submit("sum", &()).await;
            assert_eq!(test.finish::<u32>(&other).await.unwrap(), 5, "others go on");
            // Somebody has mended what killed the workers.
            let changed = test.engine().unblock(guilty, UnblockDecision::Retry).await;
            assert_eq!(changed.unwrap(), 1);
        }
        assert_eq!(test.finish::<u32>(&handle).await.unwrap(), 5);
        sound(&test).await;
    }
}
