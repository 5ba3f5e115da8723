//! A program that starts itself as a child, kills it with SIGKILL while it works, and asks what was sent twice.
//!
//! The promise that is checked, for each call of the run: **it sends its request once, and once more for each kill that
//! found it under way.** A call is under way from its commit until its result is in the database (with the next turn of
//! the task); no request is sent before the commit. A kill that finds no call under way repeats nothing.
//!
//! What was under way is asked of the database. The servers cannot tell: what a child sent right before its death may still
//! lie unread in their sockets when it is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use tasker_adaptor_sqlite::{SqliteStorage, rusqlite};
use tasker_core::{Engine, RunFilter, StackKind, StackStatus, TraceNode};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::fakes::ledger::Ledger;

/// What can go wrong in an example.
pub type Problem = Box<dyn Error + Send + Sync>;

/// A worker that is silent for so long is taken for dead. Long: a child that this machine has no time for would be taken for dead too, and
/// repeat its calls. Nobody waits for it, for who kills a child ends its lease.
pub const LEASE_MS: u64 = 600_000;
/// A pause of the tasks, in milliseconds: longer than it takes to notice it and to kill.
const PAUSE_MS: u64 = 1_500;
/// How often all is done again, with pauses twice as long, because this machine was too busy to kill in time.
const TRIES: u32 = 7;
/// Nothing here takes longer, else the example has failed.
const PATIENCE: Duration = Duration::from_mins(10);

/// When a child is killed.
#[derive(Clone, Copy, Debug)]
pub enum Kill {
    /// When this many pauses (timers) of the task began, the last one is not over, and no call is under way.
    InPause(usize),
    /// When the servers got so many requests.
    AfterRequests(usize),
}

/// What the servers and the database knew when a child was dead.
struct AtKill {
    /// Requests that the servers had read, by call.
    sent: BTreeMap<String, usize>,
    calls: Calls,
}

/// The program: without arguments the parent, else the child in this folder with its services at this URL and pauses of so many
/// milliseconds.
pub async fn program(
    name: &str,
    parent: impl AsyncFnOnce() -> Result<(), Problem>,
    child: impl AsyncFnOnce(&Path, &str, u64) -> Result<(), Problem>,
) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        [] => parent().await,
        ["child", folder, url, pause_ms] => match pause_ms.parse() {
            Ok(pause_ms) => child(Path::new(folder), url, pause_ms).await,
            Err(error) => Err(error.into()),
        },
        _ => Err("give no arguments; the program starts its children itself".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{name}: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Does something with pauses of so many milliseconds, from its beginning, until no kill in it came too late (`None`).
///
/// # Errors
/// Those of what is done, and when kills come too late again and again.
pub async fn in_time<T>(
    once: impl AsyncFn(u64) -> Result<Option<T>, Problem>,
) -> Result<T, Problem> {
    for longer in 0..TRIES {
        if let Some(done) = once(PAUSE_MS << longer).await? {
            return Ok(done);
        }
        println!(
            "a kill came too late, for this machine is busy; from the beginning, with longer pauses"
        );
    }
    Err("each kill came too late".into())
}

/// Starts children one after the other, kills them as told, lets the last one finish, and checks the promise. Gives what
/// the last one printed after `result `; nothing when a kill came too late.
///
/// # Errors
/// When a child fails or takes too long, and when the promise does not hold.
pub async fn run_and_kill(
    folder: &Path,
    url: &str,
    ledger: &Ledger,
    kills: &[Kill],
    pause_ms: u64,
) -> Result<Option<String>, Problem> {
    let mut dead = Vec::new();
    for (number, kill) in kills.iter().enumerate() {
        let mut child = start(folder, url, pause_ms)?;
        let is_met = timeout(PATIENCE, moment(folder, ledger, *kill))
            .await
            .map_err(|_| format!("the moment to kill ({kill:?}) never came"))??;
        child.start_kill()?; // SIGKILL
        match child.wait().await?.code() {
            Some(0) => return Ok(None),
            Some(code) => return Err(format!("a child ended by itself with {code}").into()),
            None if is_met => {}
            None => return Ok(None),
        }
        end_lease(folder)?;
        let at_kill = AtKill {
            sent: ledger.by_call(),
            calls: calls(folder).await?,
        };
        let (sent, calls) = (at_kill.sent.len(), &at_kill.calls);
        println!(
            "child {}  killed ({kill:?}): {sent} calls sent, {} recorded, {} under way",
            number + 1,
            calls.recorded.len(),
            calls.under_way.len(),
        );
        let is_in_pause = calls.pausing && calls.under_way.is_empty();
        if matches!(kill, Kill::InPause(_)) && !is_in_pause {
            return Ok(None);
        }
        dead.push(at_kill);
    }
    let last = start(folder, url, pause_ms)?;
    let output = timeout(PATIENCE, last.wait_with_output()).await??;
    if !output.status.success() {
        return Err(format!("the last child ended with {}", output.status).into());
    }
    let words = String::from_utf8_lossy(&output.stdout);
    let result = words
        .lines()
        .find_map(|line| line.strip_prefix("result "))
        .ok_or("the last child printed no result")?;
    println!("child {}  finished the run", kills.len() + 1);
    check(ledger, &dead)?;
    Ok(Some(result.to_owned()))
}

/// Waits for the moment; whether it was not missed.
async fn moment(folder: &Path, ledger: &Ledger, kill: Kill) -> Result<bool, Problem> {
    match kill {
        Kill::AfterRequests(requests) => ledger.reached(requests).await,
        Kill::InPause(pauses) => loop {
            let calls = calls(folder).await.unwrap_or_default();
            if calls.pauses == pauses && calls.pausing && calls.under_way.is_empty() {
                break;
            }
            if calls.pauses > pauses || calls.is_over {
                return Ok(false);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        },
    }
    Ok(true)
}

/// The lease of a worker that is known to be dead is over: whoever comes next takes up its work at once.
///
/// # Errors
/// When the file cannot be written.
pub fn end_lease(folder: &Path) -> Result<(), Problem> {
    let file = rusqlite::Connection::open(folder.join("tasker.db"))?;
    // A child that died before it had made its tables has no lease.
    let workers = "SELECT 1 FROM sqlite_schema WHERE name = 'workers'";
    if file.prepare(workers)?.exists([])? {
        file.execute("UPDATE workers SET expires_at = 0", [])?;
    }
    Ok(())
}

/// The promise.
fn check(ledger: &Ledger, dead: &[AtKill]) -> Result<(), Problem> {
    let mut again = 0;
    let sent = ledger.by_call();
    for (call, times) in &sent {
        let kills = dead.iter();
        let allowed = 1 + kills
            .filter(|kill| kill.calls.under_way.contains(call))
            .count();
        if *times > allowed {
            return Err(format!(
                "call {call:?} sent its request {times} times, not {allowed} at most"
            )
            .into());
        }
        for AtKill { sent, calls } in dead {
            if calls.recorded.contains(call) && sent.get(call) != Some(times) {
                return Err(format!("call {call} was recorded and sent its request again").into());
            }
            let committed = calls.recorded.contains(call) || calls.under_way.contains(call);
            if !committed && sent.contains_key(call) {
                return Err(format!("call {call} sent its request before it was committed").into());
            }
        }
        again += times - 1;
    }
    // Nothing is asked under two names either.
    let mut asked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in ledger.entries() {
        asked.entry(entry.request).or_default().insert(entry.call);
    }
    if let Some((request, calls)) = asked.iter().find(|(_, calls)| calls.len() > 1) {
        return Err(format!("{request} was sent by {} calls", calls.len()).into());
    }
    println!(
        "{} calls sent {} requests; {again} of them again, for calls that a kill found under way",
        sent.len(),
        sent.values().sum::<usize>(),
    );
    Ok(())
}

fn start(folder: &Path, url: &str, pause_ms: u64) -> Result<Child, Problem> {
    Ok(Command::new(std::env::current_exe()?)
        .arg("child")
        .arg(folder)
        .arg(url)
        .arg(pause_ms.to_string())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?)
}

#[derive(Default)]
struct Calls {
    /// Those whose result is recorded.
    recorded: BTreeSet<String>,
    /// Those that are committed, and have none.
    under_way: BTreeSet<String>,
    pauses: usize,
    pausing: bool,
    /// The run has ended.
    is_over: bool,
}

/// What stands in the database, read by an engine that runs nothing.
async fn calls(folder: &Path) -> Result<Calls, Problem> {
    let storage = SqliteStorage::open(folder.join("tasker.db")).await?;
    let reader = Engine::builder().storage(storage).client().await?;
    let mut calls = Calls::default();
    for run in reader.runs(&RunFilter::default(), 1).await?.runs {
        calls.is_over |= run.status.is_terminal();
        let trace = reader.run(run.id).await?.trace().await?;
        let children = trace.root.map(|root| root.children).unwrap_or_default();
        for TraceNode {
            id, kind, status, ..
        } in children
        {
            let settled = matches!(status, StackStatus::Completed | StackStatus::Failed);
            match kind {
                StackKind::Call if settled => {
                    calls.recorded.insert(id.to_string());
                }
                StackKind::Call => {
                    calls.under_way.insert(id.to_string());
                }
                StackKind::Timer => {
                    calls.pauses += 1;
                    calls.pausing |= !settled;
                }
                _ => {}
            }
        }
    }
    reader.shutdown().await?;
    Ok(calls)
}

/// One life of a host: the run is asked for (always the same one, by its key) and waited for; its result is printed.
///
/// # Errors
/// When the run fails, and when the database breaks its invariants.
pub async fn child(engine: Engine, task: &str, input: &serde_json::Value) -> Result<(), Problem> {
    let run = engine
        .submit(task, input)
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
