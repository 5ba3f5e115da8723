//! The audit names every kind of broken row, and the case list is whole.
#![cfg(feature = "conformance")]

use std::collections::BTreeSet;
use std::sync::Arc;

use tasker_adaptor::conformance::CASES;
use tasker_adaptor::{
    AUDIT, CallSeq, Claim, FrameNext, Json, Lease, MadeKind, Maintenance as _, MemoryStorage,
    NewSignal, NewStackRun, NewTaskRun, NewWorker, Outcome, Queue as _, RunStatus, RunStore as _,
    Signals as _, StackRun, StackRunId, StackStatus, TaskName, TaskRun, TaskRunId, TaskVersion,
    Timestamp, TurnCommit, TurnNo, WorkerId, Workers as _,
};

const NOW: Timestamp = Timestamp::from_millis(1_000);

/// A run whose hot root waits for a call (born claimed), a timer and a signal.
struct Scene {
    store: MemoryStorage,
    run: TaskRunId,
    root: StackRunId,
    call: StackRunId,
    timer: StackRunId,
    wait: StackRunId,
    signal: uuid::Uuid,
}

fn stack_id(number: u128) -> StackRunId {
    StackRunId::from_parts(NOW, number)
}

async fn scene() -> Scene {
    let store = MemoryStorage::new();
    let worker = WorkerId::from_parts(NOW, 1);
    let run = TaskRunId::from_parts(NOW, 1);
    let [root, call, timer, wait] = [1, 2, 3, 4].map(stack_id);
    let registered = store.register(NewWorker {
        id: worker,
        name: "w".to_owned(),
        now: NOW,
        lease_ms: 1_000,
    });
    registered.await.expect("a new worker");
    let submitted = store.submit(vec![new_run(run, root)], NOW).await;
    assert_eq!(submitted.expect("memory answers").len(), 1);
    let claim = Claim {
        worker,
        now: NOW,
        max: 1,
        only: None,
    };
    let claimed = store.claim_frames(claim).await.expect("memory answers");
    let child = |id, kind, claimed| NewStackRun { id, kind, claimed };
    let made = vec![
        child(
            call,
            MadeKind::Call {
                service: "s".to_owned(),
                path: "p".to_owned(),
                args: Json::null(),
                policy: None,
            },
            true,
        ),
        child(
            timer,
            MadeKind::Timer {
                path: "sleep".to_owned(),
                args: Json::null(),
                due_at: NOW,
            },
            false,
        ),
        child(
            wait,
            MadeKind::Signal {
                name: "go".to_owned(),
            },
            false,
        ),
    ];
    let turn = TurnCommit {
        frame: root,
        task_run: run,
        turn: TurnNo(0),
        lease: Lease {
            worker,
            epoch: claimed[0].row.epoch,
        },
        time: NOW,
        delivered: vec![],
        made,
        dropped: vec![],
        logs: vec![],
        next: FrameNext::Suspended,
    };
    let answers = store.commit(Arc::from([turn])).await;
    assert!(answers.expect("memory answers")[0].is_ok());
    let signal = uuid::Uuid::from_u128(7);
    let sent = store.send_signal(
        NewSignal {
            id: signal,
            run,
            name: "other".to_owned(),
            payload: Json::null(),
        },
        NOW,
    );
    assert!(sent.await.expect("memory answers"));
    let scene = Scene {
        store,
        run,
        root,
        call,
        timer,
        wait,
        signal,
    };
    assert!(named(&scene).await.is_empty(), "the scene is sound");
    scene
}

fn new_run(id: TaskRunId, root: StackRunId) -> NewTaskRun {
    NewTaskRun {
        id,
        root,
        task: TaskName::new("t"),
        version: TaskVersion::new("v"),
        input: Json::null(),
        idempotency_key: None,
        request_hash: String::new(),
        priority: 0,
        run_at: NOW,
        deadline: None,
        labels: std::collections::BTreeMap::new(),
        correlation_id: None,
        traceparent: None,
    }
}

/// What the audit names: invariant and row.
async fn named(scene: &Scene) -> BTreeSet<(&'static str, String)> {
    let found = scene.store.audit().await.expect("memory answers");
    let named = found.into_iter();
    named.map(|found| (found.invariant, found.id)).collect()
}

fn settle(row: &mut StackRun) {
    row.status = StackStatus::Completed;
    row.outcome = Some(Outcome::Completed(None));
    row.owner = None;
}

/// Breaks a scene and asserts that this invariant is named for this row.
async fn is_named(invariant: &'static str, breaks: impl FnOnce(&Scene) -> String) {
    let scene = scene().await;
    let id = breaks(&scene);
    let named = named(&scene).await;
    assert!(
        named.contains(&(invariant, id.clone())),
        "{invariant} is not named for {id}: {named:?}"
    );
}

async fn row_is_named(
    invariant: &'static str,
    which: impl Fn(&Scene) -> StackRunId,
    edit: impl FnOnce(&mut StackRun),
    told_of: impl Fn(&Scene) -> StackRunId,
) {
    is_named(invariant, |scene| {
        scene.store.tamper_row(which(scene), edit);
        told_of(scene).to_string()
    })
    .await;
}

async fn run_is_named(invariant: &'static str, edit: impl FnOnce(&mut TaskRun)) {
    is_named(invariant, |scene| {
        scene.store.tamper_run(scene.run, edit);
        scene.run.to_string()
    })
    .await;
}

#[tokio::test]
async fn audit_names_broken_rows() {
    let call = |scene: &Scene| scene.call;
    let root = |scene: &Scene| scene.root;
    let timer = |scene: &Scene| scene.timer;
    row_is_named("I1", call, |row| row.seq = CallSeq(9), root).await;
    row_is_named("I1", call, |row| row.seq = CallSeq(2), root).await;
    let skips = |row: &mut StackRun| {
        settle(row);
        row.delivered_order = Some(2);
    };
    row_is_named("I1", call, skips, root).await;
    row_is_named("I2", root, |row| row.made_count = 4, root).await;
    row_is_named("I2", root, |row| row.delivered_count = 1, root).await;
    row_is_named("I3", call, |row| row.delivered_order = Some(1), call).await;
    let empty = |row: &mut StackRun| {
        settle(row);
        row.outcome = None;
    };
    row_is_named("I3", call, empty, call).await;
    row_is_named("I4", call, settle, root).await;
    is_named("I5", |scene| {
        for id in [scene.call, scene.timer, scene.wait] {
            let cancel = |row: &mut StackRun| {
                row.status = StackStatus::Cancelled;
                row.owner = None;
            };
            scene.store.tamper_row(id, cancel);
        }
        scene.root.to_string()
    })
    .await;
    let wakes = |row: &mut StackRun| row.status = StackStatus::PendingResume;
    row_is_named("I6", root, wakes, root).await;
    row_is_named("I7", call, |row| row.owner = None, call).await;
    row_is_named("I7", call, |row| row.status = StackStatus::Pending, call).await;
    let stranger = WorkerId::from_parts(NOW, 99);
    row_is_named("I8", call, |row| row.owner = Some(stranger), call).await;
    is_named("I9", |scene| {
        let cancel = |run: &mut TaskRun| run.status = RunStatus::Cancelled;
        scene.store.tamper_run(scene.run, cancel);
        scene.call.to_string()
    })
    .await;
    is_named("I9", |scene| {
        scene.store.tamper_row(scene.root, settle);
        let end = |run: &mut TaskRun| run.status = RunStatus::Completed;
        scene.store.tamper_run(scene.run, end);
        scene.timer.to_string()
    })
    .await;
    run_is_named("I10", |run| run.status = RunStatus::Failed).await;
    is_named("I11", |scene| {
        for id in [scene.wait, scene.timer, scene.call, scene.root] {
            scene.store.tamper_remove(id);
        }
        scene.run.to_string()
    })
    .await;
    is_named("I11", |scene| {
        scene.store.tamper_remove(scene.root);
        scene.call.to_string()
    })
    .await;
    is_named("I11", |scene| {
        let fold = |run: &mut TaskRun| run.folded_at = Some(NOW);
        scene.store.tamper_run(scene.run, fold);
        scene.timer.to_string()
    })
    .await;
    run_is_named("I12", |run| run.status = RunStatus::Blocked).await;
    is_named("I12", |scene| {
        let block = |row: &mut StackRun| row.status = StackStatus::Blocked;
        scene.store.tamper_row(scene.timer, block);
        scene.run.to_string()
    })
    .await;
    is_named("I13", |scene| {
        let rename = |row: &mut StackRun| "other".clone_into(&mut row.path);
        scene.store.tamper_row(scene.wait, rename);
        scene.signal.to_string()
    })
    .await;
    row_is_named("I14", root, |row| row.turn = TurnNo(0), timer).await;
    let early = |row: &mut StackRun| row.delivered_turn = Some(TurnNo(2));
    row_is_named("I14", call, early, call).await;
}

#[tokio::test]
async fn two_signals_that_met_one_wait_are_named() {
    let scene = scene().await;
    let second = uuid::Uuid::from_u128(8);
    let sent = scene.store.send_signal(
        NewSignal {
            id: second,
            run: scene.run,
            name: "other".to_owned(),
            payload: Json::null(),
        },
        NOW,
    );
    assert!(sent.await.expect("memory answers"));
    for signal in [scene.signal, second] {
        scene
            .store
            .tamper_signal(scene.run, signal, Some(scene.wait));
    }
    let invariants: BTreeSet<_> = named(&scene)
        .await
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert!(invariants.contains("I13"));
}

#[test]
fn every_invariant_of_the_list_is_planted_above() {
    let test = include_str!("audit.rs");
    for query in AUDIT {
        assert!(
            test.contains(&format!("\"{}\"", query.name)),
            "{}",
            query.name
        );
    }
}

/// Source files of the cases.
const SOURCES: &[&str] = &[
    include_str!("../src/conformance/batches.rs"),
    include_str!("../src/conformance/blocked.rs"),
    include_str!("../src/conformance/cancels.rs"),
    include_str!("../src/conformance/claims.rs"),
    include_str!("../src/conformance/commits.rs"),
    include_str!("../src/conformance/deliveries.rs"),
    include_str!("../src/conformance/finishes.rs"),
    include_str!("../src/conformance/folds.rs"),
    include_str!("../src/conformance/model.rs"),
    include_str!("../src/conformance/signals.rs"),
    include_str!("../src/conformance/submits.rs"),
    include_str!("../src/conformance/tables.rs"),
    include_str!("../src/conformance/timers.rs"),
    include_str!("../src/conformance/wakes.rs"),
    include_str!("../src/conformance/workers.rs"),
];

#[test]
fn every_case_that_is_written_is_run() {
    let listed: BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
    assert_eq!(listed.len(), CASES.len(), "a name is listed twice");
    for line in SOURCES.iter().flat_map(|source| source.lines()) {
        if let Some(rest) = line.strip_prefix("pub async fn ")
            && let Some((name, arguments)) = rest.split_once('(')
            && arguments.starts_with("kit: Arc<Kit>")
        {
            assert!(listed.contains(name), "{name} is written but not listed");
        }
    }
}

/// The contract's sources, whose docs name the cases.
const CONTRACT: &[&str] = &[
    include_str!("../src/journal.rs"),
    include_str!("../src/key_store.rs"),
    include_str!("../src/logs.rs"),
    include_str!("../src/maintenance.rs"),
    include_str!("../src/queue.rs"),
    include_str!("../src/run_store.rs"),
    include_str!("../src/signals.rs"),
    include_str!("../src/task_store.rs"),
    include_str!("../src/watch.rs"),
    include_str!("../src/workers.rs"),
];

#[test]
fn every_case_that_the_contract_names_is_there() {
    let listed: Vec<_> = CASES.iter().map(|case| case.name).collect();
    let promises = CONTRACT.iter().flat_map(|source| source.lines());
    for line in promises {
        let Some((_, cases)) = line.split_once("Tested by: ") else {
            continue;
        };
        for name in cases.split('`').skip(1).step_by(2) {
            // Here, not in the suite: only the store itself can break its rows.
            let is_here = name == "audit_names_broken_rows";
            let there = match name.strip_suffix('*') {
                Some(start) => listed.iter().any(|case| case.starts_with(start)),
                None => listed.iter().any(|case| case.ends_with(name)),
            };
            assert!(there || is_here, "no case is called {name}");
        }
    }
}
