//! What becomes of calls that fail, that take too long, whose worker died, and of runs that wait for a person: each policy and each decision.
//!
//! Runs in every mode of `TASKER_TEST_MODE`, like `engine.rs`.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::FutureExt;
use serde_json::{Value, json};
use support::{sound, until};
use tasker_core::adaptor::{Failure, StackRun};
use tasker_core::service::{ServiceDescription, ServiceErrorType};
use tasker_core::testing::{Stub, TestClock, TestEngine};
use tasker_core::{
    BlockedReason, Json, MemoryStorage, MethodPolicy, Reconciled, RetryPolicy, RunError, RunHandle,
    RunStatus, ServiceCall, ServiceError, ServiceProxy, Storage, Timestamp, UnblockDecision,
    UnknownOutcome,
};

const ONE_CALL: &str = "module.exports = async (input, { tools }) => tools.svc.step(input)";
const CAUGHT: &str = "module.exports = async (input, { tools }) => tools.svc.step(input).catch((e) => [e.name, e.type])";

async fn call_of(test: &TestEngine, run: &RunHandle) -> StackRun {
    let rows = test.storage().stack_runs(run.id()).await.unwrap();
    rows.into_iter().find(|row| row.path == "step").unwrap()
}

fn retries(attempts: u32, types: Option<Vec<ServiceErrorType>>) -> MethodPolicy {
    MethodPolicy {
        retry: Some(RetryPolicy {
            types,
            ..RetryPolicy::attempts(attempts)
        }),
        ..MethodPolicy::default()
    }
}

/// Two workers, one after the other, wait as long as one would: the jitter comes from the recorded id of the call.
#[tokio::test]
async fn waits_between_attempts_grow_and_their_jitter_is_recorded() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let clock = TestClock::default();
    let stub = Stub::new("svc")
        .policy(retries(5, None))
        .answer("step", |_| Err(ServiceError::external("down")));
    let start = || {
        TestEngine::on(Arc::clone(&storage), clock.clone())
            .stub(&stub)
            .start()
    };
    let mut test = start().await;
    test.publish(CAUGHT, "calls").await;
    let mut handle = test.submit("calls", &()).await;
    let mut waits = Vec::new();
    for attempt in 1..5 {
        until(|| stub.performed("step") == attempt as usize).await;
        test.engine().quiet().await;
        let call = call_of(&test, &handle).await;
        assert_eq!((call.attempt, call.status.as_str()), (attempt, "pending"));
        let wait = call.due_at.unwrap().as_millis() - clock.millis();
        let seed = call.id.as_uuid().as_u128() as u64;
        let expected = RetryPolicy::attempts(5).delay_ms(attempt, seed, None);
        assert_eq!(wait, expected as i64);
        waits.push(wait);
        if attempt == 2 {
            test.engine().shutdown().await.unwrap();
            test = start().await;
            handle = test.engine().run(handle.id()).await.unwrap();
        }
        test.advance(wait - 1).await;
        assert_eq!(stub.performed("step"), attempt as usize, "too early");
        clock.advance(1);
    }
    assert!(
        waits.windows(2).all(|pair| pair[1] > pair[0] * 3 / 2),
        "{waits:?}"
    );
    let result: Value = test.finish(&handle).await.unwrap();
    assert_eq!(result, json!(["ServiceError", "EXTERNAL_SERVICE_ERROR"]));
    assert_eq!(stub.performed("step"), 5);
    let keys: std::collections::BTreeSet<String> = stub
        .ledger()
        .into_iter()
        .map(|call| call.idempotency_key)
        .collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    sound(&test).await;
}

#[tokio::test]
async fn only_the_types_that_a_policy_names_are_tried_again() {
    for (named, performed) in [
        (ServiceErrorType::Validation, 3),
        (ServiceErrorType::RateLimit, 1),
    ] {
        let stub = Stub::new("svc")
            .policy(retries(3, Some(vec![named])))
            .answer("step", |_| Err(ServiceError::validation("no")));
        let test = TestEngine::builder().stub(&stub).start().await;
        test.publish(CAUGHT, "calls").await;
        let result: Value = test.run("calls", &()).await.unwrap();
        assert_eq!(result, json!(["ServiceError", "VALIDATION_ERROR"]));
        assert_eq!(stub.performed("step"), performed);
    }
}

/// The nearer of the method's time and the run's deadline is what a service is told, also below a nested task, and what ends it.
#[tokio::test]
async fn the_deadline_of_a_run_reaches_its_calls_and_ends_those_in_flight() {
    for (timeout_ms, bound) in [(5_000, 5_000), (50_000, 30_000)] {
        let stub = Stub::new("svc")
            .policy(MethodPolicy {
                timeout_ms: Some(timeout_ms),
                ..MethodPolicy::default()
            })
            .answer("tell", |call| {
                Ok(Json::from(&call.deadline.map(Timestamp::as_millis)).unwrap())
            })
            .answer_later("step", |call| {
                async move {
                    call.cancellation.cancelled().await;
                    futures::future::pending().await
                }
                .boxed()
            });
        let test = TestEngine::builder().stub(&stub).start().await;
        test.publish(
            "module.exports = async (input, { tools }) => [await tools.svc.tell(), await tools.svc.step().catch((e) => e.type)]",
            "child",
        )
        .await;
        test.publish(
            "module.exports = async (input, { tools }) => tools.tasks.execute('child')",
            "parent",
        )
        .await;
        let start = test.clock().millis();
        let deadline = Timestamp::from_millis(start + 30_000);
        let submit = test.engine().submit("parent", &()).deadline(deadline);
        let handle = submit.await.unwrap();
        until(|| stub.performed("step") == 1).await;
        test.clock().advance(bound - 1);
        test.engine().quiet_but_calls().await;
        assert!(!handle.status().await.unwrap().is_terminal(), "too early");
        test.clock().advance(2);
        let result: Value = test.finish(&handle).await.unwrap();
        assert_eq!(result, json!([start + bound, "TIMEOUT_ERROR"]));
        sound(&test).await;
    }
}

/// A service that can say what became of a call, as told.
struct Careful {
    says: Says,
    asked: Arc<AtomicUsize>,
    hangs: bool,
}

#[derive(Clone, Copy, Debug)]
enum Says {
    Happened,
    DidNot,
    Unknown,
    Fails,
}

#[async_trait]
impl ServiceProxy for Careful {
    fn describe(&self) -> ServiceDescription {
        ServiceDescription::new("svc").open().policy(MethodPolicy {
            unknown_outcome: Some(UnknownOutcome::Reconcile),
            ..MethodPolicy::default()
        })
    }

    async fn call(&self, _: ServiceCall) -> Result<Json, ServiceError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.hangs {
            futures::future::pending::<()>().await;
        }
        Ok(Json::from(&"asked").unwrap())
    }

    async fn reconcile(&self, _: &ServiceCall) -> Result<Reconciled, ServiceError> {
        Ok(match self.says {
            Says::Happened => Reconciled::Happened(Json::from(&"found").unwrap()),
            Says::DidNot => Reconciled::DidNotHappen,
            Says::Unknown => Reconciled::Unknown,
            Says::Fails => return Err(ServiceError::external("no answer")),
        })
    }
}

/// A run whose only call was asked by a worker that died; the next worker's engine, how often it asked, and the run.
async fn after_a_death(says: Says) -> (TestEngine, Arc<AtomicUsize>, RunHandle) {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let clock = TestClock::default();
    let asked = Arc::new(AtomicUsize::new(0));
    let start = async |hangs: bool, asked: &Arc<AtomicUsize>| {
        let asked = Arc::clone(asked);
        TestEngine::on(Arc::clone(&storage), clock.clone())
            .with(|builder| builder.service(Careful { says, asked, hangs }))
            .start()
            .await
    };
    let first = start(true, &asked).await;
    first.publish(CAUGHT, "calls").await;
    let id = first.submit("calls", &()).await.id();
    until(|| asked.load(Ordering::SeqCst) == 1).await;
    first.engine().abandon();
    let again = Arc::new(AtomicUsize::new(0));
    let second = start(false, &again).await;
    let handle = second.engine().run(id).await.unwrap();
    (second, again, handle)
}

#[tokio::test]
async fn a_call_in_doubt_is_reconciled_before_it_is_asked_again() {
    for (says, result, times) in [
        (Says::Happened, json!("found"), 0),
        (Says::DidNot, json!("asked"), 1),
    ] {
        let (test, asked, handle) = after_a_death(says).await;
        let found: Value = test.finish(&handle).await.unwrap();
        assert_eq!(
            (found, asked.load(Ordering::SeqCst)),
            (result, times),
            "{says:?}"
        );
        sound(&test).await;
    }
}

#[tokio::test]
async fn a_person_decides_about_a_call_whose_outcome_nobody_knows() {
    let failure = Failure::new("ServiceError", "it never happened");
    for (decision, says) in [
        ("retry", Says::Unknown),
        ("supply", Says::Fails),
        ("fail", Says::Unknown),
        ("cancel", Says::Fails),
    ] {
        let (test, asked, handle) = after_a_death(says).await;
        let error = test.finish::<Value>(&handle).await.unwrap_err();
        let reason = BlockedReason::OutcomeUnknown {
            service: "svc".to_owned(),
            path: "step".to_owned(),
        };
        assert!(
            matches!(&error, RunError::Blocked(why) if *why == reason),
            "{error}"
        );
        assert_eq!(
            handle.info().await.unwrap().blocked,
            Some(reason),
            "it is listed with its reason"
        );
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        let engine = test.engine();
        let expected = match decision {
            "retry" => {
                engine
                    .unblock(handle.id(), UnblockDecision::Retry)
                    .await
                    .unwrap();
                Some(json!("asked"))
            }
            "supply" => {
                let result = UnblockDecision::supply(Json::from(&"known").unwrap());
                engine.unblock(handle.id(), result).await.unwrap();
                Some(json!("known"))
            }
            "fail" => {
                let failure = UnblockDecision::fail(failure.clone());
                engine.unblock(handle.id(), failure).await.unwrap();
                Some(json!(["ServiceError", null]))
            }
            _ => {
                engine.cancel(handle.id()).await.unwrap();
                None
            }
        };
        if let Some(expected) = expected {
            assert_eq!(test.finish::<Value>(&handle).await.unwrap(), expected);
            let again = engine.unblock(handle.id(), UnblockDecision::Retry).await;
            assert_eq!(again.unwrap(), 0, "{decision}: nothing is blocked any more");
        } else {
            let error = test.finish::<Value>(&handle).await.unwrap_err();
            assert!(matches!(error, RunError::Cancelled), "{error}");
            assert_eq!(handle.status().await.unwrap(), RunStatus::Cancelled);
        }
        assert_eq!(
            asked.load(Ordering::SeqCst),
            usize::from(decision == "retry")
        );
        sound(&test).await;
    }
}

async fn others_run() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A service that never answers does not hold a shutdown: it ends at its deadline, and the next worker need not wait for a lease.
#[tokio::test]
async fn a_shutdown_ends_at_its_deadline_and_what_is_still_asked_is_in_doubt() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let clock = TestClock::default();
    let stub = Stub::new("svc").answer_later("step", |_| futures::future::pending().boxed());
    let test = TestEngine::on(Arc::clone(&storage), clock.clone())
        .stub(&stub)
        .start()
        .await;
    test.publish(ONE_CALL, "calls").await;
    let handle = test.submit("calls", &7).await;
    until(|| stub.performed("step") == 1).await;
    let engine = test.engine().clone();
    let stopping = tokio::spawn(async move { engine.shutdown_within(3_000).await });
    others_run().await;
    clock.advance(2_999);
    others_run().await;
    assert!(
        !stopping.is_finished(),
        "it waits for the service until its deadline"
    );
    clock.advance(1);
    stopping.await.unwrap().unwrap();
    test.engine().shutdown().await.unwrap();

    let before = clock.millis();
    let second = Stub::new("svc");
    let test = TestEngine::on(storage, clock).stub(&second).start().await;
    let call = call_of(&test, &handle).await;
    assert!(call.in_doubt, "{call:?}");
    assert_eq!(
        call.take_overs, 0,
        "who leaves in good order did not die of it"
    );
    let handle = test.engine().run(handle.id()).await.unwrap();
    assert_eq!(test.finish::<u32>(&handle).await.unwrap(), 7);
    assert!(
        test.clock().millis() - before < 5_000,
        "no lease had to run out"
    );
    assert_eq!(
        second.ledger()[0].idempotency_key,
        stub.ledger()[0].idempotency_key
    );
    sound(&test).await;
}

fn within(timeout_ms: u64) -> MethodPolicy {
    MethodPolicy {
        timeout_ms: Some(timeout_ms),
        ..MethodPolicy::default()
    }
}

#[tokio::test]
async fn a_task_gives_a_policy_with_a_call_and_its_other_calls_keep_that_of_the_method() {
    let stub = Stub::new("svc")
        .policy(within(50_000))
        .answer("step", |_| Err(ServiceError::external("down")))
        .answer("tell", |call| {
            Ok(Json::from(&call.deadline.map(Timestamp::as_millis)).unwrap())
        })
        .answer_later("hang", |_| futures::future::pending().boxed());
    let test = TestEngine::builder().stub(&stub).start().await;
    test.publish(
        "module.exports = async (input, { tools, withPolicy }) => {
            const caught = (e) => e.type;
            const own = withPolicy({ timeoutMs: 2000, retry: { attempts: 3, initialMs: 1, maxMs: 1 } });
            const start = Date.now();
            const told = [await tools.svc.tell() - start, await own.svc.tell() - start];
            const late = await withPolicy({ timeoutMs: 2000 }).svc.hang().catch(caught);
            const plain = await tools.svc.step('plain').catch(caught);
            return [told, late, plain, await own.svc.step('own').catch(caught)];
        }",
        "calls",
    )
    .await;
    let handle = test.submit("calls", &()).await;
    until(|| stub.performed("hang") == 1).await;
    test.clock().advance(2_001);
    let result: Value = test.finish(&handle).await.unwrap();
    assert_eq!(
        result,
        json!([
            [50_000, 2_000],
            "TIMEOUT_ERROR",
            "EXTERNAL_SERVICE_ERROR",
            "EXTERNAL_SERVICE_ERROR"
        ])
    );
    let asked = |args: &str| {
        let mut asked = stub.ledger();
        asked.retain(|call| call.args == [args]);
        asked.len()
    };
    assert_eq!((asked("\"plain\""), asked("\"own\"")), (1, 3));
    sound(&test).await;
}

/// The policy lies with the call: a worker that never saw the turn makes the attempts that are left, with the same waits.
#[tokio::test]
async fn the_policy_of_a_call_outlives_the_worker_that_made_it() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let clock = TestClock::default();
    let stub = Stub::new("svc").answer("step", |_| Err(ServiceError::external("down")));
    let start = || {
        TestEngine::on(Arc::clone(&storage), clock.clone())
            .stub(&stub)
            .start()
    };
    let first = start().await;
    first
        .publish(
            "module.exports = async (input, context) => context.withPolicy({ retry: { attempts: 3 } }).svc.step().catch((e) => e.type)",
            "calls",
        )
        .await;
    let id = first.submit("calls", &()).await.id();
    until(|| stub.performed("step") == 1).await;
    first.engine().quiet().await;
    first.engine().abandon();
    let second = start().await;
    let handle = second.engine().run(id).await.unwrap();
    let call = call_of(&second, &handle).await;
    assert_eq!(
        call.policy.as_ref().map(Json::text),
        Some(r#"{"retry":{"attempts":3}}"#)
    );
    let seed = call.id.as_uuid().as_u128() as u64;
    let wait = RetryPolicy::attempts(3).delay_ms(1, seed, None);
    assert_eq!(
        call.due_at.unwrap().as_millis() - clock.millis(),
        wait as i64
    );
    let result: Value = second.finish(&handle).await.unwrap();
    assert_eq!(result, json!("EXTERNAL_SERVICE_ERROR"));
    assert_eq!(stub.performed("step"), 3);
    sound(&second).await;
}

#[tokio::test]
async fn a_task_may_ask_for_block_and_may_not_loosen_it() {
    for (method, asked_for) in [
        (UnknownOutcome::Block, "retry"),
        (UnknownOutcome::Block, "reconcile"),
        (UnknownOutcome::Retry, "block"),
    ] {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let clock = TestClock::default();
        let policy = MethodPolicy {
            unknown_outcome: Some(method),
            ..MethodPolicy::default()
        };
        let hangs = Stub::new("svc")
            .policy(policy.clone())
            .answer_later("step", |_| futures::future::pending().boxed());
        let first = TestEngine::on(Arc::clone(&storage), clock.clone())
            .stub(&hangs)
            .start()
            .await;
        let source = format!(
            "module.exports = async (input, {{ withPolicy }}) => withPolicy({{ unknownOutcome: '{asked_for}' }}).svc.step()"
        );
        first.publish(&source, "calls").await;
        let id = first.submit("calls", &()).await.id();
        until(|| hangs.performed("step") == 1).await;
        first.engine().abandon();
        let answers = Stub::new("svc").policy(policy);
        let second = TestEngine::on(storage, clock).stub(&answers).start().await;
        let handle = second.engine().run(id).await.unwrap();
        let error = second.finish::<Value>(&handle).await.unwrap_err();
        assert!(
            matches!(
                &error,
                RunError::Blocked(BlockedReason::OutcomeUnknown { .. })
            ),
            "{method:?}, {asked_for}: {error}"
        );
        assert_eq!(answers.performed("step"), 0);
        sound(&second).await;
    }
}

#[tokio::test]
async fn a_policy_that_is_none_is_refused_where_the_task_gives_it() {
    let stub = Stub::new("svc");
    let test = TestEngine::builder().stub(&stub).start().await;
    for (given, told) in [
        ("", "timeoutMs, retry and unknownOutcome"),
        ("7", "timeoutMs, retry and unknownOutcome"),
        ("{ timeout: 5 }", "timeout is no member"),
        ("{ concurrency: 5 }", "concurrency is no member"),
        ("{ timeoutMs: '5' }", "timeoutMs must be a whole number"),
        ("{ timeoutMs: NaN }", "timeoutMs"),
        ("{ retry: { attempts: 101 } }", "from 1 to 100"),
        ("{ retry: { factor: 11 } }", "retry.factor"),
        ("{ retry: { maxMs: 1e12 } }", "retry.maxMs"),
        ("{ retry: { types: ['TIMEOUT'] } }", "TIMEOUT_ERROR"),
        (
            "{ unknownOutcome: 'ask' }",
            "'retry', 'reconcile' or 'block'",
        ),
    ] {
        let source = format!(
            "module.exports = async (input, {{ withPolicy }}) => {{ try {{ withPolicy({given}); }} catch (e) {{ return [e.name, e.message, e instanceof TypeError]; }} }}"
        );
        test.publish(&source, "calls").await;
        let (name, message, is_type): (String, String, bool) =
            test.run("calls", &()).await.unwrap();
        assert_eq!((name.as_str(), is_type), ("TypeError", true), "{given}");
        assert!(message.contains(told), "{given}: {message}");
    }
}
