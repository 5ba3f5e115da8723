//! Hostile scripts (`tests/attacks/*.js`), each with its expected end on the first line:
//! `// ends: cpu | memory | stack | error NAME [CODE] | completed VALUE`, written before the script was first run.
//! `error Refused`: it was not published, and the reason is not its syntax.
//!
//! Each runs as the body of a task function on an engine that runs a normal task right after it. All run on one wall:
//! in-process, or child processes with `TASKER_TEST_MODE=process`.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tasker_core::limits::Limits;
use tasker_core::task::{TaskError, TaskSource};
use tasker_core::testing::test_wall;
use tasker_core::{Engine, EngineError, Failure, MemoryStorage, RunError, service_fn};

/// How long a script may take in all, the wait for a loaded machine included.
const WITHIN: Duration = Duration::from_mins(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_attack_ends_as_expected_and_disturbs_nobody() {
    let attacks = attacks();
    assert!(attacks.len() >= 200, "{} attacks", attacks.len());
    let wrong = run(attacks).await;
    assert!(
        wrong.is_empty(),
        "{} attacks ended otherwise:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The suite would see it: one script in ten gets an expectation that is not its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_wrong_expectation_is_found() {
    let mut planted: Vec<Attack> = attacks().into_iter().step_by(10).collect();
    for attack in &mut planted {
        attack.expected = match attack.expected.as_str() {
            "cpu" => "memory".to_owned(),
            "memory" => "completed \"survived\"".to_owned(),
            _ => "cpu".to_owned(),
        };
    }
    let count = planted.len();
    let wrong = run(planted).await;
    assert_eq!(wrong.len(), count, "{}", wrong.join("\n"));
}

struct Attack {
    name: String,
    expected: String,
    /// Where the end is the limit on CPU, its guard is short; elsewhere it only must not come first on a loaded machine.
    is_cpu: bool,
    body: String,
}

fn attacks() -> Vec<Attack> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks");
    let mut attacks: Vec<Attack> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let (first, body) = text.split_once('\n').unwrap();
            let expected = first
                .strip_prefix("// ends: ")
                .unwrap_or_else(|| panic!("{}: no expectation in its first line", path.display()));
            Attack {
                name: path.file_name().unwrap().to_string_lossy().into_owned(),
                expected: expected.to_owned(),
                is_cpu: expected == "cpu",
                body: body.to_owned(),
            }
        })
        .collect();
    attacks.sort_by(|a, b| a.name.cmp(&b.name));
    attacks
}

/// Runs all, two at a time, each on an engine that then runs a normal task; what ended otherwise than expected.
async fn run(attacks: Vec<Attack>) -> Vec<String> {
    let attacks = Arc::new(attacks);
    let next = Arc::new(AtomicUsize::new(0));
    let lanes = (0..2).map(|_| {
        let (attacks, next) = (Arc::clone(&attacks), Arc::clone(&next));
        tokio::spawn(async move {
            let (strict, patient) = (engine(200).await, engine(20_000).await);
            let mut wrong = BTreeMap::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some(attack) = attacks.get(n) else { break };
                let engine = if attack.is_cpu { &strict } else { &patient };
                if let Err(what) = one(engine, attack).await {
                    wrong.insert(n, format!("  {}: {what}", attack.name));
                }
            }
            strict.shutdown().await.unwrap();
            patient.shutdown().await.unwrap();
            wrong
        })
    });
    let mut wrong = BTreeMap::new();
    for lane in futures::future::join_all(lanes).await {
        wrong.extend(lane.unwrap());
    }
    wrong.into_values().collect()
}

async fn one(engine: &Engine, attack: &Attack) -> Result<(), String> {
    let ended = tokio::time::timeout(WITHIN, end_of(engine, &attack.body))
        .await
        .unwrap_or_else(|_| format!("nothing within {} s", WITHIN.as_secs()));
    let canary = tokio::time::timeout(WITHIN, async {
        let run = engine.submit("canary", &json!({ "n": 7 })).await?;
        run.result::<String>().await
    });
    match canary.await {
        Ok(Ok(answer)) if answer == "98undefined" => {}
        other => return Err(format!("ended {ended}; the task after it gave {other:?}")),
    }
    let matches = ended == attack.expected
        // Without a code any code will do.
        || attack.expected.starts_with("error ")
            && ended.starts_with(&format!("{} ", attack.expected));
    if matches {
        Ok(())
    } else {
        Err(format!("expected {}, ended {ended}", attack.expected))
    }
}

async fn engine(turn_wall_ms: u64) -> Engine {
    let engine = Engine::builder()
        .storage(MemoryStorage::new())
        .service(service_fn("svc", |call| async move {
            Ok(call.args().first().cloned().unwrap_or_default())
        }))
        .limits(Limits {
            memory_bytes: 32 << 20,
            stack_bytes: 512 << 10,
            turn_ticks: 4_000,
            turn_wall_ms,
            run_frames: 100,
            run_calls: 5_000,
            run_log_lines: 20_000,
            ..Limits::default()
        })
        .wall(test_wall())
        .threads(1)
        .start()
        .await
        .unwrap();
    let canary = "module.exports = async function canary({ n }, { tools }) {
        const answers = await Promise.all([1, 2, 3].map((k) => tools.svc.m({ k, text: 'x'.repeat(k * n) })));
        await new Promise((resolve) => setTimeout(resolve, 1));
        return JSON.parse(JSON.stringify(answers.map(({ k, text }) => k * text.length))).reduce((a, b) => a + b) + typeof leaked;
    };";
    engine.publish(canary).name("canary").await.unwrap();
    engine
}

/// As the example `attack` wraps it.
fn task_of(body: &str) -> String {
    format!(
        "const log = console.log, global = globalThis;
global.print = function print(...values) {{ log(...values); }};
module.exports = async function attack(input, context) {{
const value = await (async function (tools) {{{body}
}})(context.tools);
const result = global.__result;
return result === undefined ? value : result;
}};"
    )
}

/// How a script ends, in the words of its first line.
async fn end_of(engine: &Engine, body: &str) -> String {
    let source = TaskSource::file("attack.js", task_of(body)).named("attack");
    match engine.publish_source(source).await {
        Ok(_) => {}
        Err(EngineError::Task(TaskError::Syntax { .. } | TaskError::TooDeep { .. })) => {
            return "error SyntaxError".to_owned();
        }
        Err(EngineError::Task(_)) => return "error Refused".to_owned(),
        Err(EngineError::DoesNotCompile { failure, .. }) => return failed(&failure),
        Err(other) => return format!("error of the engine: {other}"),
    }
    let run = match engine.submit("attack", &()).await {
        Ok(run) => run,
        Err(error) => return format!("error of the engine: {error}"),
    };
    match run.outcome().await {
        Ok(Some(value)) => format!("completed {value}"),
        Ok(None) => "completed undefined".to_owned(),
        Err(RunError::Failed(failure)) => failed(&failure),
        Err(other) => format!("neither: {other}"),
    }
}

fn failed(failure: &Failure) -> String {
    match (failure.name.as_str(), failure.code.as_deref()) {
        // The guard of the clock catches what ticks do not count; both are the limit on CPU.
        ("LimitExceeded", Some("cpu" | "wall_clock")) => "cpu".to_owned(),
        ("LimitExceeded", Some("memory")) => "memory".to_owned(),
        ("RangeError", _) if failure.message.contains("call stack") => "stack".to_owned(),
        (name, Some(code)) => format!("error {name} {code}"),
        (name, None) => format!("error {name}"),
    }
}
