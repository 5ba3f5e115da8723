//! The engine end to end on memory storage, with a clock that only the test moves.
//!
//! The whole file runs three times: as it is, with `TASKER_TEST_MODE=park`, where every frame is parked as soon as it waits, and with
//! `TASKER_TEST_MODE=process`, where the VMs live in child processes.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod support;

use futures::FutureExt;
use serde_json::{Value, json};
use support::sound;
use tasker_adaptor::{Retention, Timestamp};
use tasker_core::testing::{Stub, TestEngine};
use tasker_core::{EngineError, Json, LogCursor, RunError, RunStatus, ServiceError};

fn value(value: &Value) -> Json {
    Json::from(value).unwrap()
}

/// A service that adds, fails, and echoes.
fn math() -> Stub {
    Stub::new("math")
        .answer("add", |call| {
            let (a, b): (i64, i64) = (call.arg(0)?, call.arg(1)?);
            Json::from(&(a + b)).map_err(ServiceError::internal)
        })
        .answer("fail", |_| {
            Err(ServiceError::not_found("no such number")
                .with_code("NO_NUMBER")
                .with_details(value(&json!({"n": 1}))))
        })
}

#[tokio::test]
async fn a_task_without_calls_completes() {
    let test = TestEngine::builder().start().await;
    test.publish(
        "module.exports = (input) => ({ doubled: input.n * 2 })",
        "double",
    )
    .await;
    let result: Value = test.run("double", &json!({"n": 21})).await.unwrap();
    assert_eq!(result, json!({"doubled": 42}));
    sound(&test).await;
}

#[tokio::test]
async fn calls_in_sequence_are_performed_once_each() {
    let math = math();
    let test = TestEngine::builder().stub(&math).start().await;
    test.publish(
        "module.exports = async (input, { tools }) => { let n = 0; for (let i = 0; i < 20; i++) n = await tools.math.add(n, i); return n }",
        "sum",
    )
    .await;
    let result: i64 = test.run("sum", &()).await.unwrap();
    assert_eq!(result, 190);
    assert_eq!(math.performed("add"), 20);
    sound(&test).await;
}

#[tokio::test]
async fn a_failed_call_is_an_error_that_the_task_can_catch() {
    let test = TestEngine::builder().stub(&math()).start().await;
    test.publish(
        "module.exports = async (input, { tools }) => { try { await tools.math.fail() } catch (e) { return [e instanceof Error, e.type, e.code, e.status, e.details, e.message] } }",
        "catches",
    )
    .await;
    let result: Value = test.run("catches", &()).await.unwrap();
    assert_eq!(
        result,
        json!([true, "NOT_FOUND_ERROR", "NO_NUMBER", 404, {"n": 1}, "no such number"])
    );
    sound(&test).await;
}

#[tokio::test]
async fn an_uncaught_failure_fails_the_run_with_its_cause() {
    let test = TestEngine::builder().stub(&math()).start().await;
    test.publish(
        "module.exports = async (input, { tools }) => { await tools.math.fail() }",
        "fails",
    )
    .await;
    let error = test.run::<_, Value>("fails", &()).await.unwrap_err();
    let RunError::Failed(failure) = error else {
        panic!("{error}")
    };
    assert_eq!(failure.kind.as_deref(), Some("NOT_FOUND_ERROR"));
    assert_eq!(failure.message, "no such number");
    sound(&test).await;
}

#[tokio::test]
async fn parallel_calls_and_races_settle_in_delivered_order() {
    let math = math();
    let test = TestEngine::builder().stub(&math).start().await;
    test.publish(
        r"module.exports = async (input, { tools }) => {
            const all = await Promise.all([1, 2, 3].map((n) => tools.math.add(n, n)));
            const settled = await Promise.allSettled([tools.math.fail(), tools.math.add(1, 1)]);
            const race = await Promise.race([tools.math.add(5, 5), tools.sleep(86_400_000)]);
            const any = await Promise.any([tools.math.fail(), tools.math.add(2, 2)]);
            return { all, settled: settled.map((s) => s.status), race, any };
        }",
        "parallel",
    )
    .await;
    let result: Value = test.run("parallel", &()).await.unwrap();
    assert_eq!(
        result,
        json!({"all": [2, 4, 6], "settled": ["rejected", "fulfilled"], "race": 10, "any": 4})
    );
    sound(&test).await;
}

#[tokio::test]
async fn a_nested_task_gives_its_return_value() {
    let math = math();
    let test = TestEngine::builder().stub(&math).start().await;
    test.publish("module.exports = async (n, { tools }) => { if (n === 0) return 0; return n + await tools.tasks.execute('down', n - 1) }", "down").await;
    let result: i64 = test.run("down", &5).await.unwrap();
    assert_eq!(result, 15);
    let error = test.run::<_, Value>("down", &200).await.unwrap_err();
    assert!(error.to_string().contains("nested tasks"), "{error}");
    sound(&test).await;
}

#[tokio::test]
async fn an_unknown_nested_task_or_service_is_an_error_in_the_task() {
    let test = TestEngine::builder().stub(&math()).start().await;
    test.publish(
        r"module.exports = async (input, { tools }) => {
            const seen = [];
            for (const ask of [() => tools.tasks.execute('nope', 1), () => tools.maths.add(1), () => tools.nothing.here()]) {
                try { await ask() } catch (e) { seen.push([e.type, e.message]) }
            }
            return seen;
        }",
        "asks",
    )
    .await;
    let result: Vec<(String, String)> = test.run("asks", &()).await.unwrap();
    assert!(
        result.iter().all(|(kind, _)| kind == "NOT_FOUND_ERROR"),
        "{result:?}"
    );
    assert!(result[0].1.contains("nope"), "{result:?}");
    assert!(result[1].1.contains("math"), "{result:?}");
    sound(&test).await;
}

#[tokio::test]
async fn a_small_result_of_a_run_that_was_submitted_and_ended_here_needs_no_row() {
    let test = TestEngine::builder().start().await;
    test.publish(
        "module.exports = (input) => { if (input.fails) throw new Error('no'); return input }",
        "echo",
    )
    .await;
    let small = test.submit("echo", &"small").await;
    let large = test.submit("echo", &"large".repeat(1_000)).await;
    let failed = test.submit("echo", &json!({"fails": true})).await;
    let again = test.engine().run(small.id()).await.unwrap();
    let handles = [&small, &large, &failed];
    for handle in handles {
        let stranger = test.engine().run(handle.id()).await.unwrap();
        let _ = test.finish::<Value>(&stranger).await;
    }
    let now = Timestamp::from_millis(test.clock().millis() + 1);
    for handle in handles {
        assert!(
            test.storage()
                .fold(handle.id(), Vec::new(), now)
                .await
                .unwrap()
        );
    }
    let all = Retention {
        statuses: vec![RunStatus::Completed, RunStatus::Failed],
        ended_before: now,
        max: 10,
    };
    assert_eq!(test.storage().delete_runs(&all).await.unwrap(), 3);
    assert_eq!(small.result::<String>().await.unwrap(), "small");
    assert_eq!(small.clone().result::<String>().await.unwrap(), "small");
    for gone in [&large, &failed, &again] {
        let problem = gone.outcome().await.unwrap_err();
        let is_unknown = matches!(problem, RunError::Engine(EngineError::UnknownRun { .. }));
        assert!(is_unknown, "{problem:?}");
    }
}

#[tokio::test]
async fn a_sleep_is_a_row_and_costs_no_vm() {
    let test = TestEngine::builder().start().await;
    test.publish(
        "module.exports = async (input, { tools }) => { const from = Date.now(); await tools.sleep(3_600_000); return Date.now() - from }",
        "sleeps",
    )
    .await;
    let handle = test.submit("sleeps", &()).await;
    test.engine().quiet().await;
    assert_eq!(handle.status().await.unwrap(), RunStatus::Suspended);
    let slept: i64 = test.finish(&handle).await.unwrap();
    assert!((3_600_000..3_620_000).contains(&slept), "{slept}");
    sound(&test).await;
}

#[tokio::test]
async fn unawaited_work_goes_on_detached() {
    let math = math();
    let test = TestEngine::builder().stub(&math).start().await;
    test.publish(
        "module.exports = async (input, { tools }) => { tools.math.add(1, 2); tools.math.fail(); tools.sleep(1e9); return 'done' }",
        "fires",
    )
    .await;
    let handle = test.submit("fires", &()).await;
    let result: String = test.finish(&handle).await.unwrap();
    assert_eq!(result, "done");
    test.engine().quiet().await;
    assert_eq!((math.performed("add"), math.performed("fail")), (1, 1));
    sound(&test).await;
    let lines: Vec<String> = handle
        .log_page(LogCursor::default())
        .await
        .unwrap()
        .lines
        .into_iter()
        .map(|line| line.line.message)
        .collect();
    assert!(
        lines.iter().any(|line| line.contains("math.fail")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn what_can_never_settle_fails_at_once() {
    let test = TestEngine::builder().start().await;
    test.publish("module.exports = () => new Promise(() => {})", "hangs")
        .await;
    let error = test.run::<_, Value>("hangs", &()).await.unwrap_err();
    assert!(error.to_string().contains("never settle"), "{error}");
    sound(&test).await;
}

#[tokio::test]
async fn a_cancelled_run_cleans_up_and_ends() {
    let (release, held) = tokio::sync::watch::channel(false);
    let slow = Stub::new("slow").answer_later("wait", move |call| {
        let mut held = held.clone();
        async move {
            tokio::select! {
                _ = held.wait_for(|go| *go) => {}
                () = call.cancellation.cancelled() => {}
            }
            Ok(Json::null())
        }
        .boxed()
    });
    let math = math();
    let test = TestEngine::builder().stub(&slow).stub(&math).start().await;
    test.publish(
        r"module.exports = async (input, { tools }) => {
            try { await tools.slow.wait() } finally { await tools.math.add(1, 1) }
        }",
        "cleans",
    )
    .await;
    let handle = test.submit("cleans", &()).await;
    while slow.performed("wait") == 0 {
        tokio::task::yield_now().await;
    }
    handle.cancel().await.unwrap();
    let error = test.finish::<Value>(&handle).await.unwrap_err();
    assert!(matches!(error, RunError::Cancelled), "{error}");
    assert_eq!(math.performed("add"), 1);
    drop(release);
    sound(&test).await;
}
