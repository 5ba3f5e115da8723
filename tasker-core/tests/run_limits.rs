//! What all frames of a run may do together: nested tasks count towards the totals of their run.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use tasker_core::TraceNode;
use tasker_core::limits::Limits;
use tasker_core::testing::{Stub, TestEngine};
use tasker_core::{RunError, StackKind};

async fn engine(limits: Limits) -> TestEngine {
    let echo = Stub::new("echo").answer("m", |_| Ok(tasker_core::Json::default()));
    TestEngine::builder()
        .stub(&echo)
        .with(|builder| builder.limits(limits))
        .start()
        .await
}

fn frames(node: &TraceNode) -> usize {
    usize::from(node.kind == StackKind::Frame) + node.children.iter().map(frames).sum::<usize>()
}

#[tokio::test]
async fn a_task_that_runs_itself_twice_ends() {
    let test = engine(Limits {
        run_frames: 50,
        ..Limits::default()
    })
    .await;
    test.publish(
        "module.exports = async (input, { tools }) => {
            const again = () => tools.tasks.execute('twice').catch((error) => error.code);
            return [await again(), await again()];
        };",
        "twice",
    )
    .await;
    let run = test.submit("twice", &()).await;
    // Every frame catches what its children fail with and goes on; the next one that it makes ends it too.
    match test.finish::<()>(&run).await {
        Err(RunError::Failed(failure)) => {
            assert_eq!(failure.code.as_deref(), Some("run_frames"), "{failure}");
        }
        other => panic!("{other:?}"),
    }
    let trace = run.trace().await.unwrap();
    assert_eq!(frames(&trace.root.unwrap()), 51);
    assert!(test.audit().await.is_empty());
}

#[tokio::test]
async fn calls_of_nested_tasks_count_for_their_run() {
    let test = engine(Limits {
        run_calls: 40,
        ..Limits::default()
    })
    .await;
    test.publish(
        "module.exports = async (input, { tools }) => { for (let n = 0; n < 15; n++) await tools.echo.m(n); return 'done'; };",
        "child",
    )
    .await;
    test.publish(
        "module.exports = async (input, { tools }) => {
            const ends = [];
            for (let n = 0; n < 3; n++) ends.push(await tools.tasks.execute('child').catch((error) => error.message));
            return ends;
        };",
        "parent",
    )
    .await;
    let answer: Vec<String> = test.run("parent", &()).await.unwrap();
    assert_eq!(answer[..2], ["done", "done"]);
    assert!(
        answer[2].contains("40 calls in all frames of one run")
            && answer[2].contains("Limits::run_calls"),
        "{answer:?}"
    );
    // What the run made is gone with it: the next one begins at nothing.
    let again: Vec<String> = test.run("parent", &()).await.unwrap();
    assert_eq!(again[..2], ["done", "done"]);
}

#[tokio::test]
async fn the_limit_of_a_run_is_sticky_for_its_root() {
    let test = engine(Limits {
        run_calls: 10,
        ..Limits::default()
    })
    .await;
    test.publish(
        "module.exports = async (input, { tools }) => { for (;;) { try { await tools.echo.m(1); } catch {} } };",
        "endless",
    )
    .await;
    match test.run::<_, ()>("endless", &()).await {
        Err(RunError::Failed(failure)) => {
            assert_eq!(failure.name, "LimitExceeded");
            assert_eq!(failure.code.as_deref(), Some("run_calls"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn log_lines_of_nested_tasks_count_for_their_run() {
    let test = engine(Limits {
        run_log_lines: 25,
        ..Limits::default()
    })
    .await;
    test.publish(
        "module.exports = () => { for (let n = 0; n < 10; n++) console.log(n); };",
        "child",
    )
    .await;
    test.publish(
        "module.exports = async (input, { tools }) => { for (let n = 0; n < 4; n++) await tools.tasks.execute('child'); };",
        "parent",
    )
    .await;
    let run = test.submit("parent", &()).await;
    test.finish::<Option<u8>>(&run).await.unwrap();
    let page = run.log_page(Default::default()).await.unwrap();
    assert_eq!(page.lines.len(), 26);
    assert!(
        page.lines[25]
            .line
            .message
            .contains("Limits::run_log_lines"),
        "{:?}",
        page.lines[25]
    );
}
