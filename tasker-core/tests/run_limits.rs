//! Limits that the engine keeps: what all frames of a run do together, what services answer and signals bring, how long publishing
//! takes.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use serde_json::json;
use tasker_core::limits::Limits;
use tasker_core::testing::{Stub, TestEngine};
use tasker_core::{Engine, EngineError, MemoryStorage, RunError, StackKind, TraceNode};

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
    let page = run
        .log_page(tasker_core::LogCursor::default())
        .await
        .unwrap();
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

#[tokio::test]
async fn an_answer_that_is_too_large_is_an_error_of_its_call() {
    let big = Stub::new("big")
        .answer("text", |_| {
            Ok(tasker_core::Json::from(&"x".repeat(2_000)).unwrap())
        })
        .answer("deep", |_| {
            let text = "[".repeat(50) + &"]".repeat(50);
            Ok(tasker_core::Json::parse(text).unwrap())
        });
    let test = TestEngine::builder()
        .stub(&big)
        .with(|builder| {
            builder.limits(Limits {
                payload_bytes: 1_000,
                json_depth: 20,
                ..Limits::default()
            })
        })
        .start()
        .await;
    test.publish(
        "module.exports = async (input, { tools }) => {
            const end = (call) => call.then(() => 'an answer', (error) => [error.name, error.code, error.message.length < 400]);
            const ends = [await end(tools.big.text()), await end(tools.big.deep())];
            await tools.sleep(60_000);
            return ends;
        };",
        "asks",
    )
    .await;
    let ends: Vec<(String, String, bool)> = test.run("asks", &()).await.unwrap();
    let expected = |code: &str| ("LimitExceeded".to_owned(), code.to_owned(), true);
    assert_eq!(ends, [expected("payload"), expected("json_depth")]);
    assert!(test.audit().await.is_empty());
}

#[tokio::test]
async fn a_signal_that_no_task_could_take_is_refused() {
    let test = engine(Limits {
        payload_bytes: 1_000,
        json_depth: 3,
        ..Limits::default()
    })
    .await;
    test.publish(
        "module.exports = async (i, { signal }) => {
            const names = [];
            for (const name of ['', 'x'.repeat(201), 'a\\u0000', 7]) try { signal(name) } catch (e) { names.push(e.constructor.name) }
            return [names, JSON.stringify(await signal('é'.repeat(200)))];
        }",
        "waits",
    )
    .await;
    let handle = test.submit("waits", &()).await;
    test.engine().quiet().await;
    let longest = "é".repeat(200);
    for name in [String::new(), format!("{longest}x"), "a\0".to_owned()] {
        let refused = handle.signal(&name, &1).await.unwrap_err();
        assert!(refused.to_string().contains("1 to 200"), "{refused}");
    }
    for payload in [json!("x".repeat(1_000)), json!([[[[1]]]])] {
        let refused = handle.signal(&longest, &payload).await.unwrap_err();
        assert!(
            matches!(refused, EngineError::InputTooLarge { .. }),
            "{refused}"
        );
    }
    assert!(handle.signal(&longest, &json!([[[1]]])).await.unwrap());
    let result: serde_json::Value = test.finish(&handle).await.unwrap();
    assert_eq!(
        result,
        json!([
            ["TypeError", "TypeError", "TypeError", "TypeError"],
            "[[[1]]]"
        ])
    );
    assert!(test.audit().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_compiles_for_ever_is_refused_in_time() {
    let engine = Engine::builder()
        .storage(MemoryStorage::new())
        .limits(Limits {
            turn_wall_ms: 200,
            turn_ticks: u64::MAX,
            memory_bytes: 1 << 30,
            source_bytes: 8 << 20,
            ..Limits::default()
        })
        .start()
        .await
        .unwrap();
    // Each `let` is looked for among all before it, so it takes the square of their number: some 150 times the guard.
    let names = |function: usize| {
        let names = (0..60_000).map(|n| format!("let name{n};"));
        format!("function f{function}(){{{}}}", names.collect::<String>())
    };
    let source: String = (0..4).map(names).collect();
    let publish = engine
        .publish(format!("{source}\nmodule.exports = () => 1;"))
        .name("slow");
    let refused = tokio::time::timeout(std::time::Duration::from_mins(10), publish)
        .await
        .expect("the guard is 200 ms");
    match refused {
        Err(EngineError::DoesNotCompile { failure, .. }) => {
            assert_eq!(failure.code.as_deref(), Some("wall_clock"), "{failure}");
        }
        other => panic!("{other:?}"),
    }
    engine.shutdown().await.unwrap();
}

#[tokio::test]
async fn tasks_nest_as_deep_as_the_limit_and_no_deeper() {
    let test = engine(Limits {
        depth: 3,
        ..Limits::default()
    })
    .await;
    test.publish(
        "module.exports = async (n, { tools }) => {
            try { return await tools.tasks.execute('deeper', n + 1); } catch (e) { return [n, e.code, e.message.includes('Limits::depth')]; }
        };",
        "deeper",
    )
    .await;
    let end: (u32, String, bool) = test.run("deeper", &0).await.unwrap();
    assert_eq!(end, (3, "depth".to_owned(), true));
}

#[tokio::test]
async fn a_source_that_is_too_large_is_not_published() {
    let test = engine(Limits {
        source_bytes: 200,
        ..Limits::default()
    })
    .await;
    let source = format!("module.exports = () => 1; // {}", "x".repeat(200));
    let refused = test.engine().publish(source).name("big").await;
    match refused {
        Err(error @ EngineError::Task(_)) => {
            let text = error.to_string();
            assert!(
                text.contains("200") && text.contains("Limits::source_bytes"),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_log_of_a_frame_has_a_size() {
    let test = engine(Limits {
        log_bytes: 1_000,
        ..Limits::default()
    })
    .await;
    test.publish(
        "module.exports = () => { for (let n = 0; n < 50; n++) console.log('x'.repeat(100)); };",
        "talks",
    )
    .await;
    let run = test.submit("talks", &()).await;
    test.finish::<Option<u8>>(&run).await.unwrap();
    let page = run
        .log_page(tasker_core::LogCursor::default())
        .await
        .unwrap();
    assert_eq!(page.lines.len(), 11);
    assert!(page.lines[10].line.message.contains("Limits::log_bytes"));
}
