//! What one turn or one service does for long holds up no other: calls that come together are begun by one task, and the core is woken
//! for several turns at one time.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::json;
use tasker_core::limits::Limits;
use tasker_core::{Engine, Json, MemoryStorage, ServiceCall, Wall, service_fn};

/// No test waits longer than this for anything: only what never comes meets it, on however busy a machine.
const PATIENCE: Duration = Duration::from_mins(5);

/// A service that keeps its thread until another call was made, where it could not be made if it were begun by the same task.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_service_that_keeps_its_thread_holds_up_no_other_call() {
    let (freed, waits) = mpsc::channel::<()>();
    let waits = Arc::new(Mutex::new(waits));
    let engine = Engine::builder()
        .storage(MemoryStorage::new())
        .wall(Wall::in_process())
        .service(service_fn("svc", move |call: ServiceCall| {
            let (freed, waits) = (freed.clone(), Arc::clone(&waits));
            async move {
                match call.method().as_str() {
                    // Nobody frees it: it is slow, which the engine notes.
                    "slow" if call.args()[0].text() == "\"alone\"" => {
                        let none = waits
                            .lock()
                            .unwrap()
                            .recv_timeout(Duration::from_millis(20));
                        assert!(none.is_err(), "nothing was to be freed");
                    }
                    "slow" => waits.lock().unwrap().recv_timeout(PATIENCE).unwrap(),
                    "free" => freed.send(()).unwrap(),
                    other => panic!("{other} is none of its methods"),
                }
                Ok(Json::null())
            }
        }))
        .start()
        .await
        .unwrap();
    engine
        .publish(
            "module.exports = async function both(input, { tools }) {
                if (input === 'alone') await tools.svc.slow('alone');
                else await Promise.all([tools.svc.slow('not alone'), tools.svc.free()]);
                return input;
            }",
        )
        .await
        .unwrap();
    for input in ["alone", "together", "together"] {
        let run = engine.submit("both", &input).await.unwrap();
        let result = tokio::time::timeout(PATIENCE, run.result::<String>());
        assert_eq!(result.await.expect("the run hangs").unwrap(), input);
    }
}

/// Rounds of a long turn.
const LONG: u64 = 100_000_000;

/// Both turns are sent to the only thread, the short one first. Its call is asked while the long one is still under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_turn_hides_no_turn_that_ended_before_it() {
    let engine: Arc<Mutex<Option<Engine>>> = Arc::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = {
        let (engine, seen) = (Arc::clone(&engine), Arc::clone(&seen));
        service_fn("svc", move |_: ServiceCall| {
            let turns = engine
                .lock()
                .unwrap()
                .as_ref()
                .map(|engine| engine.stats().turns);
            seen.lock().unwrap().push(turns.unwrap_or_default());
            async move { Ok(Json::null()) }
        })
    };
    let started = Engine::builder()
        .storage(MemoryStorage::new())
        .service(service)
        .wall(Wall::in_process())
        .threads(1)
        // Nothing else wakes the core meanwhile.
        .poll_ms(600_000)
        .lease_ms(600_000)
        .limits(Limits {
            turn_wall_ms: 120_000,
            turn_ticks: u64::MAX,
            ..Limits::default()
        })
        .start()
        .await
        .unwrap();
    for source in [
        "module.exports = async function short(input, { tools }) { await tools.svc.step(); }",
        "module.exports = async function long(turns) { for (let n = 0; n < turns; n++); }",
        "module.exports = async function both(turns, { tools }) {
            await Promise.all([tools.tasks.execute('short'), tools.tasks.execute('long', turns)]);
        }",
    ] {
        started.publish(source).await.unwrap();
    }
    *engine.lock().unwrap() = Some(started.clone());
    // From the second time on the code is at hand, and both begin at one moment.
    let mut in_time = 0;
    for rounds in [0, LONG, LONG, LONG, LONG, LONG, LONG, LONG] {
        seen.lock().unwrap().clear();
        let before = started.stats().turns;
        let run = started.submit("both", &json!(rounds)).await.unwrap();
        tokio::time::timeout(PATIENCE, run.result::<()>())
            .await
            .expect("the run hangs")
            .unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 1);
        let parent_and_short = 2;
        in_time += usize::from(rounds > 0 && seen[0] == before + parent_and_short);
    }
    // Now and then a busy machine keeps the core from its look for as long as the long turn takes, or the thread from beginning both.
    assert!(
        in_time >= 4,
        "the short turn was hidden all but {in_time} times"
    );
    engine.lock().unwrap().take();
}
