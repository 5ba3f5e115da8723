//! Runs hostile scripts on one engine and says how each ended, and whether a normal task runs correctly after it.
//!
//! ```text
//! cargo run --release -p tasker-examples --bin attack -- FILE… --wall in-process --memory-mb 32 --stack-kb 512 --cpu-ms 200 --json
//! ```
//!
//! The text of each file is the body of a task function (sloppy mode). It may use `context.tools.svc.m(value)`, a service that gives
//! the value back; `print(value)`, which writes a log line; and `globalThis.__result`, a value or promise that then is the task's result.
//! With `--json` each file gives one line: `{"file","ended","limit","ms","host_rss_kb","canary"}`. `ended` is completed, failed or
//! blocked; `limit` the limit that ended it, or null; `ms` from submit to end; `host_rss_kb` the most memory that this process held
//! meanwhile; `canary` whether the normal task completed with the right answer. Exit code 0: every canary did.
//!
//! `--cpu-ms` is the guard of a turn of a turn, which here is its limit on CPU too; the count of interrupt ticks, which falls at the
//! same place on every replay, is set beside it. Both are reported as `cpu`. A script that only waits is cancelled after `--wait-ms`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::limits::Limits;
use tasker_core::task::TaskSource;
use tasker_core::{Engine, EngineError, Failure, RunError, Wall, service_fn};

const USAGE: &str = "usage: attack FILE… [--wall in-process|process] [--memory-mb 32] [--stack-kb 512] [--cpu-ms 200] \
    [--wait-ms 10000] [--json]";

/// A task that uses what a script may have broken for others: a call, a timer, arithmetic, JSON, a promise of its own.
const CANARY: &str = "module.exports = async function canary({ n }, { tools }) {
    const answers = await Promise.all([1, 2, 3].map((k) => tools.svc.m({ k, text: 'x'.repeat(k * n) })));
    await new Promise((resolve) => setTimeout(resolve, 1));
    return JSON.parse(JSON.stringify(answers.map(({ k, text }) => k * text.length))).reduce((a, b) => a + b) + typeof leaked;
};";
/// 1·1·n + 2·2·n + 3·3·n for n = 7.
const CANARY_ANSWER: &str = "98undefined";

/// How long the canary may take. It needs milliseconds; the rest is for a machine that is busy with a script's stuck thread.
const CANARY_WITHIN: Duration = Duration::from_secs(20);

/// Interrupt ticks a millisecond of the limit: a tick of the cheapest loop takes some 50 µs.
const TICKS_A_MS: u64 = 20;

/// A plain `main`: on the process wall this program is run again in its sandboxes, which must begin before any thread does.
fn main() {
    tasker_core::wall::child_main();
    let code = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(attack_all()),
        Err(error) => {
            eprintln!("attack: {error}");
            2
        }
    };
    // Threads that were given up are not waited for.
    std::process::exit(code);
}

async fn attack_all() -> i32 {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("attack: {problem}\n{USAGE}");
            return 2;
        }
    };
    match run(&options).await {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            eprintln!("attack: {error}");
            2
        }
    }
}

/// Runs all files; whether every canary was right.
async fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    // On disk, so that what scripts make (answers, log lines) does not stay in this process.
    let folder = tempfile::tempdir()?;
    let engine = Engine::builder()
        .storage(SqliteStorage::open(folder.path().join("attack.db")).await?)
        .service(service_fn("svc", |call| async move {
            Ok(call.args().first().cloned().unwrap_or_default())
        }))
        .limits(options.limits())
        .wall(options.wall.clone())
        .start()
        .await?;
    engine.publish(CANARY).name("canary").await?;
    let mut all_right = true;
    for file in &options.files {
        let report = attack(&engine, file, options).await;
        all_right &= report.canary;
        if options.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            println!("{report}");
        }
    }
    engine.shutdown().await?;
    Ok(all_right)
}

/// What is said of a file.
#[derive(Serialize)]
struct Report {
    file: String,
    ended: &'static str,
    limit: Option<String>,
    ms: u64,
    host_rss_kb: u64,
    canary: bool,
    /// What happened, for people; not part of the JSON line.
    #[serde(skip)]
    note: String,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let canary = if self.canary { "ok" } else { "LOST" };
        let limit = self.limit.as_deref().unwrap_or("-");
        write!(
            f,
            "{:9} {limit:10} {:6} ms {:7} kB canary {canary} {} {}",
            self.ended, self.ms, self.host_rss_kb, self.file, self.note
        )
    }
}

/// How a script ended.
struct Ended {
    how: &'static str,
    limit: Option<String>,
    note: String,
}

async fn attack(engine: &Engine, file: &Path, options: &Options) -> Report {
    memory::forget_peak();
    let clock = Clock::start();
    let ended = match std::fs::read(file) {
        Ok(text) => run_script(engine, &String::from_utf8_lossy(&text), options.wait).await,
        Err(error) => Ended {
            how: "failed",
            limit: None,
            note: format!("the file cannot be read: {error}"),
        },
    };
    Report {
        file: file.display().to_string(),
        ended: ended.how,
        limit: ended.limit,
        ms: clock.millis(),
        host_rss_kb: memory::peak_kb(),
        canary: canary(engine).await,
        note: ended.note,
    }
}

/// The task whose function has this body. What the body returns is the result, unless it leaves one in `globalThis.__result`.
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

async fn run_script(engine: &Engine, body: &str, wait: Duration) -> Ended {
    let source = TaskSource {
        name: Some("attack".to_owned()),
        path: "attack.js".to_owned(),
        source: task_of(body),
        modules: Vec::new(),
    };
    if let Err(error) = engine.publish_source(source).await {
        return refused(&error);
    }
    let handle = match engine.submit("attack", &json!(null)).await {
        Ok(handle) => handle,
        Err(error) => return refused(&error),
    };
    let outcome = tokio::time::timeout(wait, handle.outcome()).await;
    match outcome {
        Ok(Ok(value)) => Ended {
            how: "completed",
            limit: None,
            note: shortened(value.as_ref().map_or("undefined", |value| value.text())),
        },
        Ok(Err(RunError::Failed(failure))) => failed(&failure),
        Ok(Err(RunError::Blocked(reason))) => Ended {
            how: "blocked",
            limit: None,
            note: shortened(&reason.to_string()),
        },
        Ok(Err(error)) => Ended {
            how: "failed",
            limit: None,
            note: shortened(&error.to_string()),
        },
        Err(_elapsed) => {
            let cancelled = handle.cancel().await;
            Ended {
                how: "failed",
                limit: Some("wait".to_owned()),
                note: format!(
                    "it still waited after {} ms and was cancelled: {cancelled:?}",
                    wait.as_millis()
                ),
            }
        }
    }
}

/// A script that could not be published or submitted.
fn refused(error: &EngineError) -> Ended {
    let limit = match error {
        EngineError::DoesNotCompile { failure, .. } => limit_of(failure),
        EngineError::Task(tasker_core::task::TaskError::TooLarge { .. }) => {
            Some("source".to_owned())
        }
        _ => None,
    };
    Ended {
        how: "failed",
        limit,
        note: shortened(&error.to_string()),
    }
}

fn failed(failure: &Failure) -> Ended {
    Ended {
        how: "failed",
        limit: limit_of(failure),
        note: shortened(&failure.to_string()),
    }
}

/// The limit that a failure names. Here the guard of a turn is the limit on CPU.
fn limit_of(failure: &Failure) -> Option<String> {
    let code = failure.code.as_deref();
    match code.filter(|_| failure.name == "LimitExceeded") {
        Some("wall_clock") => Some("cpu".to_owned()),
        Some(limit) => Some(limit.to_owned()),
        // The stack is the task's own to pass: an error that it may catch, and that ends it when it does not.
        None if failure.name == "RangeError" && failure.message.contains("call stack") => {
            Some("stack".to_owned())
        }
        None => None,
    }
}

/// Whether a normal task on the same engine gives its answer.
async fn canary(engine: &Engine) -> bool {
    let run = async {
        let handle = engine.submit("canary", &json!({ "n": 7 })).await.ok()?;
        handle.result::<String>().await.ok()
    };
    let answer = tokio::time::timeout(CANARY_WITHIN, run).await;
    answer.ok().flatten().as_deref() == Some(CANARY_ANSWER)
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(120).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short.replace('\n', " ")
}

/// The command line, read.
struct Options {
    files: Vec<PathBuf>,
    wall: Wall,
    memory_mb: usize,
    stack_kb: usize,
    cpu_ms: u64,
    wait: Duration,
    json: bool,
}

impl Options {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            files: Vec::new(),
            wall: Wall::in_process(),
            memory_mb: 32,
            stack_kb: 512,
            cpu_ms: 200,
            wait: Duration::from_secs(10),
            json: false,
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} takes a value"));
            match arg.as_str() {
                "--wall" => match value()?.as_str() {
                    "in-process" => options.wall = Wall::in_process(),
                    "process" => options.wall = Wall::process(),
                    other => {
                        return Err(format!("--wall is in-process or process, not {other:?}"));
                    }
                },
                "--memory-mb" => options.memory_mb = number(&arg, &value()?)?,
                "--stack-kb" => options.stack_kb = number(&arg, &value()?)?,
                "--cpu-ms" => options.cpu_ms = number(&arg, &value()?)?,
                "--wait-ms" => options.wait = Duration::from_millis(number(&arg, &value()?)?),
                "--json" => options.json = true,
                flag if flag.starts_with("--") => {
                    return Err(format!("{flag} is no option"));
                }
                file => options.files.push(PathBuf::from(file)),
            }
        }
        if options.files.is_empty() {
            return Err("give the files to run".to_owned());
        }
        Ok(options)
    }

    fn limits(&self) -> Limits {
        Limits {
            memory_bytes: self.memory_mb << 20,
            stack_bytes: self.stack_kb << 10,
            turn_ticks: self.cpu_ms.saturating_mul(TICKS_A_MS),
            turn_wall_ms: self.cpu_ms,
            run_frames: 1_000,
            run_calls: 100_000,
            ..Limits::default()
        }
    }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{name} takes a whole number, not {text:?}"))
}

/// Time of one script.
struct Clock(std::time::Instant);

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured here is real time"
)]
impl Clock {
    fn start() -> Self {
        Self(std::time::Instant::now())
    }

    fn millis(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

/// Memory of this process, as Linux tells it; 0 elsewhere.
mod memory {
    /// From here on the peak counts anew.
    pub(super) fn forget_peak() {
        // Refused by some containers: then the peak is that of the whole run, which is only larger.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }

    pub(super) fn peak_kb() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    }
}
