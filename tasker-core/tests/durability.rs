//! What survives: crashes, shutdowns, retries, unknown outcomes, changed histories, cancels, the cleaner.
//!
//! Runs three times like `engine.rs`: as it is, with `TASKER_TEST_MODE=park` and with `TASKER_TEST_MODE=process`.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};
use support::{sound, until};
use tasker_core::adaptor::{FaultAction, FaultStorage};
use tasker_core::testing::{Stub, TestClock, TestEngine};
use tasker_core::{
    BlockedReason, Drive, EngineError, Json, MemoryStorage, MethodPolicy, Processed, RetryPolicy,
    RunError, RunStatus, ServiceError, Storage, StorageError, UnblockDecision, UnknownOutcome,
};
use tokio::sync::watch;

const SUM: &str = r"module.exports = async (input, { tools }) => {
    let n = 0;
    for (let i = 0; i < 5; i++) n = await tools.svc.step(n + 1);
    return n;
}";

/// A service whose third call hangs until the test lets it go.
fn hangs_at_third() -> (Stub, watch::Sender<bool>) {
    let (release, held) = watch::channel(false);
    let count = Arc::new(AtomicUsize::new(0));
    let stub = Stub::new("svc").answer_later("step", move |call| {
        let (mut held, count) = (held.clone(), Arc::clone(&count));
        async move {
            if count.fetch_add(1, Ordering::SeqCst) == 2 {
                let _ = held.wait_for(|go| *go).await;
            }
            call.arg::<Json>(0)
        }
        .boxed()
    });
    (stub, release)
}

#[tokio::test]
async fn a_crash_between_calls_repeats_only_the_call_in_flight() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let clock = TestClock::default();
    let (first, _release) = hangs_at_third();
    let engine = TestEngine::on(Arc::clone(&storage), clock.clone())
        .stub(&first)
        .start()
        .await;
    engine.publish(SUM, "sum").await;
    let id = engine.submit("sum", &()).await.id();
    until(|| first.performed("step") == 3).await;
    engine.engine().abandon();

    let second = Stub::new("svc");
    let engine = TestEngine::on(storage, clock).stub(&second).start().await;
    let handle = engine.engine().run(id).await.unwrap();
    let result: u32 = engine.finish(&handle).await.unwrap();
    assert_eq!(result, 5);
    let repeated = second.ledger();
    assert_eq!(
        repeated.len(),
        3,
        "two calls were recorded before the crash: {repeated:?}"
    );
    assert_eq!(repeated[0].args, ["3"]);
    assert_eq!(repeated[0].attempt, 2);
    assert_eq!(
        repeated[0].idempotency_key,
        first.ledger()[2].idempotency_key
    );
    sound(&engine).await;
}

#[tokio::test]
async fn a_shutdown_hands_over_at_once() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let clock = TestClock::default();
    let (first, release) = hangs_at_third();
    let engine = TestEngine::on(Arc::clone(&storage), clock.clone())
        .stub(&first)
        .start()
        .await;
    engine.publish(SUM, "sum").await;
    let handle = engine.submit("sum", &()).await;
    until(|| first.performed("step") == 3).await;
    release.send(true).unwrap();
    engine.engine().shutdown().await.unwrap();
    engine.engine().shutdown().await.unwrap();
    let started = clock.millis();
    assert!(matches!(
        handle.result::<Value>().await,
        Err(RunError::Detached) | Ok(_)
    ));
    assert!(matches!(
        engine.engine().submit("sum", &()).await,
        Err(EngineError::ShutDown)
    ));

    let second = Stub::new("svc");
    let engine = TestEngine::on(storage, clock).stub(&second).start().await;
    let handle = engine.engine().run(handle.id()).await.unwrap();
    let result: u32 = engine.finish(&handle).await.unwrap();
    assert_eq!(result, 5);
    assert_eq!(
        first.performed("step") + second.performed("step"),
        5,
        "no call was repeated"
    );
    assert!(
        engine.clock().millis() - started < 10_000,
        "no lease had to run out"
    );
    sound(&engine).await;
}

#[tokio::test]
async fn a_failed_call_is_tried_again_by_its_policy_with_one_key() {
    let count = AtomicUsize::new(0);
    let stub = Stub::new("svc")
        .policy(MethodPolicy {
            retry: Some(RetryPolicy::attempts(4)),
            ..MethodPolicy::default()
        })
        .answer("step", move |_| {
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => Err(ServiceError::external("the provider is down")),
                1 => Err(ServiceError::rate_limit("slow down").with_retry_after_ms(60_000)),
                _ => Ok(Json::from(&7).unwrap()),
            }
        })
        .answer("wrong", |_| Err(ServiceError::validation("no")));
    let test = TestEngine::builder().stub(&stub).start().await;
    test.publish("module.exports = async (i, { tools }) => [await tools.svc.step(1), await tools.svc.wrong().catch((e) => e.type)]", "retries").await;
    let before = test.clock().millis();
    let result: Value = test.run("retries", &()).await.unwrap();
    assert_eq!(result, json!([7, "VALIDATION_ERROR"]));
    assert!(
        test.clock().millis() - before >= 60_900,
        "retry_after was not honoured"
    );
    let ledger = stub.ledger();
    assert_eq!(
        ledger.iter().map(|p| p.attempt).collect::<Vec<_>>(),
        [1, 2, 3, 1]
    );
    assert!(
        ledger[..3]
            .iter()
            .all(|p| p.idempotency_key == ledger[0].idempotency_key)
    );
    sound(&test).await;
}

#[tokio::test]
async fn a_call_that_does_not_answer_times_out() {
    let stub = Stub::new("svc")
        .policy(MethodPolicy {
            timeout_ms: Some(5_000),
            ..MethodPolicy::default()
        })
        .answer_later("step", |_| futures::future::pending().boxed());
    let test = TestEngine::builder().stub(&stub).start().await;
    test.publish("module.exports = async (i, { tools }) => tools.svc.step().catch((e) => [e.type, e.message])", "waits").await;
    let handle = test.submit("waits", &()).await;
    until(|| stub.performed("step") == 1).await;
    test.clock().advance(5_001);
    let result: (String, String) = test.finish(&handle).await.unwrap();
    assert_eq!(result.0, "TIMEOUT_ERROR");
    assert!(result.1.contains("5000 ms"), "{}", result.1);
    sound(&test).await;
}

#[tokio::test]
async fn a_call_of_unknown_outcome_blocks_the_run_until_a_person_decides() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let clock = TestClock::default();
    let block = MethodPolicy {
        unknown_outcome: Some(UnknownOutcome::Block),
        ..MethodPolicy::default()
    };
    let stub = Stub::new("svc")
        .policy(block.clone())
        .answer_later("pay", |_| futures::future::pending().boxed());
    let engine = TestEngine::on(Arc::clone(&storage), clock.clone())
        .stub(&stub)
        .start()
        .await;
    engine
        .publish(
            "module.exports = async (i, { tools }) => await tools.svc.pay(10)",
            "pays",
        )
        .await;
    let id = engine.submit("pays", &()).await.id();
    until(|| stub.performed("pay") == 1).await;
    engine.engine().abandon();

    let second = Stub::new("svc").policy(block);
    let engine = TestEngine::on(storage, clock).stub(&second).start().await;
    let handle = engine.engine().run(id).await.unwrap();
    let error = engine.finish::<Value>(&handle).await.unwrap_err();
    let RunError::Blocked(BlockedReason::OutcomeUnknown { service, path }) = error else {
        panic!("{error}")
    };
    assert_eq!((service.as_str(), path.as_str()), ("svc", "pay"));
    assert_eq!(second.performed("pay"), 0, "nobody is asked twice");
    sound(&engine).await;
    let supplied = UnblockDecision::supply(Json::parse(r#""paid""#).unwrap());
    assert_eq!(engine.engine().unblock(id, supplied).await.unwrap(), 1);
    let result: String = engine.finish(&handle).await.unwrap();
    assert_eq!(result, "paid");
    sound(&engine).await;
}

#[tokio::test]
async fn a_history_that_the_code_does_not_make_again_blocks_the_run() {
    let memory = MemoryStorage::new();
    let storage: Arc<dyn Storage> = Arc::new(memory.clone());
    let stub = Stub::new("svc");
    let test = TestEngine::on(Arc::clone(&storage), TestClock::default())
        .stub(&stub)
        .start()
        .await;
    test.publish(
        "module.exports = async (i, { tools }) => { await tools.svc.step('a'); await tools.sleep(3_600_000); return 1 }",
        "sleeps",
    )
    .await;
    let handle = test.submit("sleeps", &()).await;
    test.engine().quiet().await;
    let rows = storage.stack_runs(handle.id()).await.unwrap();
    let call = rows.iter().find(|row| row.path == "step").unwrap();
    memory.tamper_row(call.id, |row| {
        row.args = Some(Json::parse(r#"["b"]"#).unwrap());
    });
    let error = test.finish::<Value>(&handle).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(r#"recorded svc.step["b"]"#), "{text}");
    assert!(text.contains(r#"attempted svc.step["a"]"#), "{text}");
    assert_eq!(handle.status().await.unwrap(), RunStatus::Blocked);
    // The history is mended: the run goes on.
    memory.tamper_row(call.id, |row| {
        row.args = Some(Json::parse(r#"["a"]"#).unwrap());
    });
    assert_eq!(
        test.engine()
            .unblock(handle.id(), UnblockDecision::Retry)
            .await
            .unwrap(),
        1
    );
    let result: u32 = test.finish(&handle).await.unwrap();
    assert_eq!(result, 1);
    assert_eq!(stub.performed("step"), 1);
    sound(&test).await;
}

#[tokio::test]
async fn a_submit_with_a_known_key_finds_the_run() {
    let test = TestEngine::builder().stub(&Stub::new("svc")).start().await;
    test.publish(SUM, "sum").await;
    let engine = test.engine();
    let first = engine
        .submit("sum", &json!({"a": 1}))
        .idempotency_key("k")
        .await
        .unwrap();
    let again = engine
        .submit("sum", &json!({"a": 1}))
        .idempotency_key("k")
        .await
        .unwrap();
    assert_eq!(first.id(), again.id());
    let other = engine
        .submit("sum", &json!({"a": 2}))
        .idempotency_key("k")
        .await
        .unwrap_err();
    assert!(
        matches!(other, EngineError::Storage(StorageError::IdempotencyConflict { existing }) if existing == first.id()),
        "{other}"
    );
}

#[tokio::test]
async fn bad_requests_are_refused_with_what_to_do() {
    let test = TestEngine::builder().start().await;
    test.publish("module.exports = () => 1", "hello").await;
    let engine = test.engine();
    let unknown = engine.submit("helo", &()).await.unwrap_err().to_string();
    assert!(unknown.contains("hello"), "{unknown}");
    let text = engine
        .submit_text("hello", "{nope")
        .await
        .unwrap_err()
        .to_string();
    assert!(text.contains("hello") && text.contains("JSON"), "{text}");
    let large = engine
        .submit("hello", &"x".repeat(5 << 20))
        .await
        .unwrap_err()
        .to_string();
    assert!(large.contains("payload_bytes"), "{large}");
    let deep = engine
        .submit_text("hello", "[".repeat(200) + &"]".repeat(200))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        deep.contains("json_depth") || deep.contains("recursion"),
        "{deep}"
    );
    let syntax = engine
        .publish("module.exports = () => {\n  return 1 +;\n}")
        .await
        .unwrap_err()
        .to_string();
    assert!(syntax.contains("2:"), "{syntax}");
    let nothing = engine
        .publish("const a = 1;")
        .name("empty")
        .await
        .unwrap_err()
        .to_string();
    assert!(nothing.contains("function"), "{nothing}");
    let id = "01890000-0000-7000-8000-000000000000".parse().unwrap();
    assert!(matches!(
        engine.run(id).await,
        Err(EngineError::UnknownRun { .. })
    ));
    assert!(matches!(
        engine.process_next().await,
        Err(EngineError::WrongDrive { .. })
    ));
}

#[tokio::test]
async fn a_result_that_json_cannot_hold_fails_with_its_path() {
    let test = TestEngine::builder().start().await;
    test.publish(
        "module.exports = () => ({ items: [1, { id: 10n }] })",
        "big",
    )
    .await;
    let error = test
        .run::<_, Value>("big", &())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("items[1].id"), "{error}");
}

#[tokio::test]
async fn driven_by_hand_a_nested_run_finishes_step_by_step() {
    let stub = Stub::new("svc");
    let test = TestEngine::builder()
        .stub(&stub)
        .with(|b| b.drive(Drive::Manual))
        .start()
        .await;
    test.publish(
        "module.exports = async (i, { tools }) => await tools.svc.step(i)",
        "inner",
    )
    .await;
    test.publish(
        "module.exports = async (i, { tools }) => await tools.tasks.execute('inner', 4) + await tools.svc.step(1)",
        "outer",
    )
    .await;
    let handle = test.submit("outer", &()).await;
    let mut steps = Vec::new();
    for _ in 0..50 {
        match test.engine().process_next().await.unwrap() {
            Processed::Nothing => break,
            step => steps.push(step),
        }
    }
    assert_eq!(
        handle.status().await.unwrap(),
        RunStatus::Completed,
        "{steps:?}"
    );
    let frames = steps
        .iter()
        .filter(|step| matches!(step, Processed::Frame(_)))
        .count();
    let calls = steps
        .iter()
        .filter(|step| matches!(step, Processed::Call(_)))
        .count();
    assert_eq!((frames, calls), (5, 2), "{steps:?}");
    let result: u32 = handle.result().await.unwrap();
    assert_eq!(result, 5);
}

#[tokio::test]
async fn log_lines_are_written_once_and_can_be_followed() {
    let test = TestEngine::builder().stub(&Stub::new("svc")).start().await;
    test.publish(
        "module.exports = async (i, { tools }) => { console.log('one', { a: 1 }); await tools.sleep(600_000); console.warn('two'); await tools.svc.step(1); tools.log('error', 'three', { b: 2 }) }",
        "logs",
    )
    .await;
    let handle = test.submit("logs", &()).await;
    test.finish::<Value>(&handle).await.unwrap();
    let lines: Vec<(String, String)> = handle
        .logs()
        .map(|line| {
            let line = line.unwrap().line;
            (line.level.as_str().to_owned(), line.message)
        })
        .collect()
        .await;
    let expected = [
        ("info", r#"one {"a":1}"#),
        ("warn", "two"),
        ("error", "three"),
    ]
    .map(|(l, m)| (l.to_owned(), m.to_owned()));
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn the_trace_outlives_the_rows() {
    let stub = Stub::new("svc").answer("fails", |_| Err(ServiceError::not_found("nothing here")));
    let test = TestEngine::builder()
        .stub(&stub)
        .with(|b| b.keep_rows_ms(60_000))
        .start()
        .await;
    test.publish(
        "module.exports = async (i, { tools }) => await tools.svc.step(2)",
        "inner",
    )
    .await;
    test.publish(
        "module.exports = async (i, { tools }) => { await tools.svc.fails().catch(() => 0); return await tools.tasks.execute('inner') }",
        "outer",
    )
    .await;
    let handle = test.submit("outer", &()).await;
    test.finish::<Value>(&handle).await.unwrap();
    let before = handle.trace().await.unwrap();
    test.advance(120_000).await;
    assert!(
        test.storage()
            .stack_runs(handle.id())
            .await
            .unwrap()
            .is_empty(),
        "rows are left"
    );
    let after = handle.trace().await.unwrap();
    let (before, after) = (before.to_string(), after.to_string());
    assert_eq!(before, after);
    assert!(after.contains("svc.fails failed"), "{after}");
    assert!(after.contains("task inner completed"), "{after}");
    assert!(after.contains("   └─ svc.step completed"), "{after}");
    sound(&test).await;
}

/// Storage tells of each end that it commits, also the engine that commits it.
#[tokio::test]
async fn the_row_of_a_run_that_ends_here_is_not_read_for_its_end() {
    let faults = FaultStorage::over(Arc::new(MemoryStorage::new()));
    let control = faults.control().clone();
    let test = TestEngine::on(Arc::new(faults.clone()), TestClock::default())
        .stub(&Stub::new("svc"))
        .start()
        .await;
    test.publish("module.exports = (input) => input.repeat(2_000)", "large")
        .await;
    let times = |wanted: &str| {
        let methods = control.methods();
        methods.iter().filter(|method| **method == wanted).count()
    };
    control.on_next("commit", FaultAction::FailBefore);
    let handle = test.submit("large", &"a").await;
    let run = handle.id();
    let waiting = tokio::spawn(async move { handle.result::<String>().await });
    // Its end is written, and the answer lost: the engine hears of the end before it has the answer.
    until(|| times("commit") == 1).await;
    control.on_next("commit", FaultAction::FailAfter);
    test.clock().advance_to_next().await;
    until(|| times("commit") == 2).await;
    let is_completed = async |run| {
        let row = faults.inner().run(run).await.unwrap().unwrap();
        row.status == RunStatus::Completed
    };
    assert!(is_completed(run).await);
    // What is heard later is heard.
    let later = test.submit("large", &"b").await.id();
    for _ in 0..100_000 {
        if is_completed(later).await {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(is_completed(later).await);
    until(|| times("commit") == 3).await;
    assert_eq!(times("run"), 0);
    test.clock().advance_to_next().await;
    assert_eq!(waiting.await.unwrap().unwrap(), "a".repeat(2_000));
    assert_eq!(times("run"), 0);
}

#[tokio::test]
async fn what_has_just_ended_is_cleaned_after_the_rush() {
    let faults = FaultStorage::over(Arc::new(MemoryStorage::new()));
    let control = faults.control().clone();
    let test = TestEngine::on(Arc::new(faults), TestClock::default())
        .stub(&Stub::new("svc"))
        .with(|b| b.keep_rows_ms(0))
        .start()
        .await;
    test.publish(SUM, "sum").await;
    // A turn whose commit does not end keeps its frame at work.
    control.on_next("commit", FaultAction::Delay);
    let busy = test.submit("sum", &()).await;
    until(|| control.delayed() == 1).await;
    let ended = test.submit("sum", &()).await;
    ended.outcome().await.unwrap();
    let rounds = || {
        let methods = control.methods();
        methods.iter().filter(|name| **name == "compact").count()
    };
    let clean = async |millis| {
        let before = rounds();
        test.clock().advance(millis);
        until(|| rounds() > before).await;
        test.storage().stack_runs(ended.id()).await.unwrap().len()
    };
    assert!(clean(9_000).await > 0, "rows were deleted during the rush");
    assert_eq!(clean(2_000).await, 0, "rows are left after ten seconds");
    control.release();
    busy.outcome().await.unwrap();
    assert_eq!(clean(1_000).await, 0);
    assert_eq!(test.storage().stack_runs(busy.id()).await.unwrap().len(), 0);
    sound(&test).await;
}

#[tokio::test]
async fn a_private_service_is_for_tasks_that_were_granted_it() {
    let vault = Stub::new("vault");
    let test = TestEngine::builder()
        .with(|b| b.private_service(vault.clone()))
        .start()
        .await;
    let source =
        "module.exports = async (i, { tools }) => tools.vault.open(1).catch((e) => e.type)";
    test.publish(source, "stranger").await;
    test.engine()
        .publish(source)
        .name("friend")
        .grant("vault")
        .await
        .unwrap();
    assert_eq!(
        test.run::<_, Value>("stranger", &()).await.unwrap(),
        json!("AUTHORIZATION_ERROR")
    );
    assert_eq!(test.run::<_, Value>("friend", &()).await.unwrap(), json!(1));
    assert_eq!(vault.performed("open"), 1);
}

#[tokio::test]
async fn a_task_with_a_list_of_methods_calls_no_other_and_the_refusal_is_recorded() {
    let (vault, open) = (Stub::new("vault"), Stub::new("open"));
    let test = TestEngine::builder()
        .stub(&open)
        .with(|b| b.private_service(vault.clone()))
        .start()
        .await;
    test.engine()
        .publish(
            "module.exports = async (i, { tools }) => {
                const ends = [];
                for (const call of [() => tools.vault.read.one(1), () => tools.vault.write(2), () => tools.open.list(3), () => tools.open.drop(4)]) {
                    ends.push(await call().catch((e) => [e.type, e.message.includes('grant_methods')]));
                }
                await tools.sleep(60_000);
                return ends;
            }",
        )
        .name("clerk")
        .grant_methods("vault", ["read.*"])
        .grant_methods("open", ["list"])
        .await
        .unwrap();
    let handle = test.submit("clerk", &()).await;
    let refused = json!(["AUTHORIZATION_ERROR", true]);
    // After the sleep the frame is built from its journal: what was refused is in it.
    assert_eq!(
        test.finish::<Value>(&handle).await.unwrap(),
        json!([1, refused, 3, refused])
    );
    assert_eq!(vault.performed("write") + open.performed("drop"), 0);
    let trace = handle.trace().await.unwrap().to_string();
    assert!(trace.contains("vault.write failed"), "{trace}");
    sound(&test).await;
}

#[tokio::test]
async fn a_deadline_stops_calls_that_come_after_it() {
    let stub = Stub::new("svc");
    let test = TestEngine::builder().stub(&stub).start().await;
    test.publish(
        "module.exports = async (i, { tools }) => { await tools.sleep(60_000); return tools.svc.step(1).catch((e) => e.type) }",
        "late",
    )
    .await;
    let deadline = tasker_core::Timestamp::from_millis(test.clock().millis() + 30_000);
    let handle = test
        .engine()
        .submit("late", &())
        .deadline(deadline)
        .await
        .unwrap();
    assert_eq!(
        test.finish::<String>(&handle).await.unwrap(),
        "TIMEOUT_ERROR"
    );
    assert_eq!(stub.performed("step"), 0);
    sound(&test).await;
}

#[tokio::test]
async fn context_travels_with_every_call() {
    let stub = Stub::new("svc").answer("step", |call| {
        Ok(Json::from(&json!([
            call.correlation_id.as_deref(),
            call.traceparent.as_deref(),
            call.task.as_str()
        ]))
        .unwrap())
    });
    let test = TestEngine::builder().stub(&stub).start().await;
    test.publish("module.exports = async (i, { tools, run }) => { await tools.sleep(600_000); return [await tools.svc.step(), run.correlationId, run.labels] }", "ctx").await;
    let handle = test
        .engine()
        .submit("ctx", &())
        .correlation_id("c-1")
        .traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .label("tenant", "a")
        .await
        .unwrap();
    let result: Value = test.finish(&handle).await.unwrap();
    assert_eq!(
        result,
        json!([["c-1", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "ctx"], "c-1", {"tenant": "a"}])
    );
}

#[tokio::test]
async fn a_signal_is_waited_for_as_a_row_and_kept_when_it_is_early() {
    let test = TestEngine::builder().start().await;
    test.publish(
        "module.exports = async (i, { signal }) => [await signal('first'), await signal('second')]",
        "approves",
    )
    .await;
    let handle = test.submit("approves", &()).await;
    test.engine().quiet().await;
    assert!(handle.signal("second", &json!({"by": "b"})).await.unwrap());
    assert!(handle.signal("first", &"a").await.unwrap());
    let result: Value = test.finish(&handle).await.unwrap();
    assert_eq!(result, json!(["a", {"by": "b"}]));
    assert!(!handle.signal("first", &()).await.unwrap());
    sound(&test).await;
}

#[tokio::test]
async fn a_method_is_asked_no_more_often_at_one_time_than_its_policy_says() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let stub = Stub::new("svc")
        .policy(MethodPolicy {
            concurrency: Some(3),
            ..MethodPolicy::default()
        })
        .answer_later("step", move |_| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(Json::null())
            }
            .boxed()
        });
    let test = TestEngine::builder().stub(&stub).start().await;
    test.publish("module.exports = async (i, { tools }) => (await Promise.all(Array.from({ length: 40 }, () => tools.svc.step()))).length", "wide").await;
    assert_eq!(test.run::<_, u32>("wide", &()).await.unwrap(), 40);
    assert_eq!(seen.load(Ordering::SeqCst), 3);
    sound(&test).await;
}
