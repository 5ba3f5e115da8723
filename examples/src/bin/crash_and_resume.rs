//! Kill -9 in the middle of a run, three times, and what comes of it.
//!
//! ```text
//! cargo run --release -p tasker-examples --bin crash_and_resume
//! ```
//!
//! The program starts itself as a child, which runs a task of 20 calls on a file database. Each call adds a line to a ledger, a file
//! outside the database, written through to the disk. The child is killed with SIGKILL after some calls, three times; a last child
//! finishes the run. Then the ledger is counted: **a call whose result was recorded is never performed again.** The one call that
//! was under way when a child died may have been performed without having been recorded: it is asked again, with the same
//! idempotency key. That is what at-least-once means; a provider that knows the key does it once.
//!
//! The exit code is 1 when any of this does not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::{Engine, RunFilter, Service, ServiceError, ServiceProxy, StackStatus, TraceNode};
use tasker_examples::killed::{LEASE_MS, end_lease};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

type Problem = Box<dyn Error + Send + Sync>;

const TASK: &str = include_str!("../../tasks/twenty-calls.js");
const CALLS: u32 = 20;
/// Where each child is killed: its ledger stands still there, however long this machine takes to kill it.
const KILLS: [Stop; 3] = [
    Stop::BeforeAnswer(5),
    Stop::BeforeNext(4),
    Stop::BeforeAnswer(6),
];
/// The ledger takes so long before it makes an entry, and again before it answers.
const LEDGER_PAUSE: Duration = Duration::from_millis(15);
/// No child takes longer, else the example has failed.
const PATIENCE: Duration = Duration::from_mins(10);

/// Where a ledger stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// This many entries are made; the last one is not answered yet.
    BeforeAnswer(u32),
    /// This many entries are made, and the answers recorded; the next call is on its way.
    BeforeNext(u32),
    Never,
}

impl Stop {
    /// As an argument of a child.
    fn text(self) -> String {
        match self {
            Self::BeforeAnswer(entries) => format!("answer-{entries}"),
            Self::BeforeNext(entries) => format!("next-{entries}"),
            Self::Never => "never".to_owned(),
        }
    }

    fn read(text: &str) -> Result<Self, Problem> {
        Ok(match text.split_once('-') {
            Some(("answer", entries)) => Self::BeforeAnswer(entries.parse()?),
            Some(("next", entries)) => Self::BeforeNext(entries.parse()?),
            _ => Self::Never,
        })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let done = match arguments.as_slice() {
        [] => parent().await,
        [word, folder, stop] if word == "child" => match Stop::read(&stop.to_string_lossy()) {
            Ok(stop) => child(Path::new(folder), stop).await,
            Err(problem) => Err(problem),
        },
        _ => Err("give no arguments; the program starts its children itself".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("crash_and_resume: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Kills children, lets the last one finish, counts.
async fn parent() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let mut recorded: BTreeSet<u32> = BTreeSet::new();
    // For each call, how often it stood in the ledger when it was first seen to be recorded.
    let mut performed_when_recorded: BTreeMap<u32, usize> = BTreeMap::new();

    for (number, stop) in KILLS.into_iter().enumerate() {
        let mut child = start(folder.path(), stop)?;
        timeout(PATIENCE, stands_still(&mut child)).await??;
        child.kill().await?; // SIGKILL
        end_lease(folder.path())?;
        let before = recorded.len();
        let ledger = count(folder.path())?;
        for entry in recorded_entries(folder.path()).await? {
            if recorded.insert(entry) {
                let times = ledger.get(&entry).copied().unwrap_or_default();
                performed_when_recorded.insert(entry, times);
            }
        }
        println!(
            "child {}  killed when it stood still ({stop:?}, {}); {} more results are recorded, {} in all",
            number + 1,
            child.wait().await?,
            recorded.len() - before,
            recorded.len(),
        );
    }

    let last = start(folder.path(), Stop::Never)?;
    let output = timeout(PATIENCE, last.wait_with_output()).await??;
    if !output.status.success() {
        return Err(format!("the last child ended with {}", output.status).into());
    }
    let words = String::from_utf8_lossy(&output.stdout);
    let result = words
        .lines()
        .find_map(|line| line.strip_prefix("result "))
        .ok_or("the last child printed no result")?;
    println!("child {}  finished the run: {result}\n", KILLS.len() + 1);

    let ledger = count(folder.path())?;
    for (entry, times) in &ledger {
        println!("entry {entry:2}  performed {}", "#".repeat(*times));
    }
    let total: usize = ledger.values().sum();
    println!(
        "\n{total} entries were made for {CALLS} calls and {} kills",
        KILLS.len()
    );

    let sum: u32 = (1..=CALLS).sum();
    let expected = format!(r#"{{"entered":{CALLS},"sum":{sum}}}"#);
    if result != expected {
        return Err(format!("the result is {result}, not {expected}").into());
    }
    if let Some(missing) = (1..=CALLS).find(|entry| !ledger.contains_key(entry)) {
        return Err(format!("entry {missing} was never made").into());
    }
    for (entry, times) in performed_when_recorded {
        if ledger[&entry] != times {
            return Err(format!("entry {entry} was recorded and made again").into());
        }
    }
    if total > CALLS as usize + KILLS.len() {
        return Err("more than one call was repeated for a kill".into());
    }
    println!("no recorded call was performed again");
    Ok(())
}

fn start(folder: &Path, stop: Stop) -> Result<Child, Problem> {
    Ok(Command::new(std::env::current_exe()?)
        .arg("child")
        .arg(folder)
        .arg(stop.text())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?)
}

/// Waits until the child has said that its ledger stands still.
async fn stands_still(child: &mut Child) -> Result<(), Problem> {
    let stdout = child.stdout.as_mut().ok_or("the child has no output")?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if line == "stands still" {
            return Ok(());
        }
    }
    Err("the child ended by itself".into())
}

/// How often each entry stands in the ledger.
fn count(folder: &Path) -> Result<BTreeMap<u32, usize>, Problem> {
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(folder.join("ledger"))?.lines() {
        *counts.entry(line.parse()?).or_default() += 1;
    }
    Ok(counts)
}

#[derive(Deserialize)]
struct Entry {
    entry: u32,
}

/// The entries whose results are in the database, read by an engine that runs nothing.
async fn recorded_entries(folder: &Path) -> Result<Vec<u32>, Problem> {
    let storage = SqliteStorage::open(folder.join("tasker.db")).await?;
    let reader = Engine::builder().storage(storage).client().await?;
    let mut entries = Vec::new();
    for run in reader.runs(&RunFilter::default(), 1).await?.runs {
        let trace = reader.run(run.id).await?.trace().await?;
        let calls = trace.root.map(|root| root.children).unwrap_or_default();
        for TraceNode { status, args, .. } in calls {
            if let (StackStatus::Completed, Some(args)) = (status, args) {
                let [Entry { entry }] = args.to()?;
                entries.push(entry);
            }
        }
    }
    reader.shutdown().await?;
    Ok(entries)
}

/// One life of the host: opens the database, asks for the run (always the same one, by its key), waits for its end.
async fn child(folder: &Path, stop: Stop) -> Result<(), Problem> {
    let ledger = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("ledger"))?;
    let engine = Engine::builder()
        .storage(SqliteStorage::open(folder.join("tasker.db")).await?)
        .service(ledger_service(ledger, stop))
        .lease_ms(LEASE_MS)
        .poll_ms(100)
        .start()
        .await?;
    engine.publish(TASK).await?;
    let run = engine
        .submit("twenty-calls", &serde_json::json!({ "entries": CALLS }))
        .idempotency_key("the one run")
        .await?;
    let result = run.outcome().await?.unwrap_or_default();
    let damage = engine.audit().await?;
    if !damage.is_empty() {
        return Err(format!("the database breaks its invariants: {damage:?}").into());
    }
    println!("result {result}");
    engine.shutdown().await?;
    Ok(())
}

struct Ledger {
    file: File,
    /// Entries that were made in this life.
    made: AtomicU32,
    stop: Stop,
}

/// `enter({ entry })` adds a line to the ledger and answers the entry, until the ledger stands still.
fn ledger_service(file: File, stop: Stop) -> impl ServiceProxy {
    let made = AtomicU32::new(0);
    let ledger = Ledger { file, made, stop };
    Service::with_state("ledger", Arc::new(ledger)).method("enter", async |c, Entry { entry }| {
        let ledger = Arc::clone(&c.state);
        tokio::time::sleep(LEDGER_PAUSE).await;
        if ledger.stop == Stop::BeforeNext(ledger.made.load(Ordering::Relaxed)) {
            stand_still().await;
        }
        let writing = Arc::clone(&ledger);
        tokio::task::spawn_blocking(move || {
            let mut file = &writing.file;
            file.write_all(format!("{entry}\n").as_bytes())?;
            file.sync_data()
        })
        .await
        .map_err(ServiceError::internal)?
        .map_err(ServiceError::external)?;
        if ledger.stop == Stop::BeforeAnswer(ledger.made.fetch_add(1, Ordering::Relaxed) + 1) {
            stand_still().await;
        }
        tokio::time::sleep(LEDGER_PAUSE).await;
        Ok(entry)
    })
}

/// Says so, and never goes on.
async fn stand_still() {
    println!("stands still");
    std::future::pending::<()>().await;
}
