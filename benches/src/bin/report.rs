//! Prints the figures, each with its floor and their ratio.
//!
//! ```text
//! cargo run --release -p tasker-benches --bin report                    all figures
//! cargo run --release -p tasker-benches --bin report -- --quick         at a twentieth of their size (parked runs: a tenth): shows that they work
//! cargo run --release -p tasker-benches --bin report -- --figure call   one of them
//! .config/postgres.sh run cargo run …                                   with a Postgres for `chain_postgres`
//! ```
//!
//! With `--json` the last line is an array of `{"figure","value","unit","floor","ratio","goal","holds"}`.
//!
//! Each figure is taken in a process of its own, one after the other, so that none depends on what those before it left behind:
//! threads, caches, the heap of the allocator.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use clap::Parser;
use tasker_benches::figure::Figure;
use tasker_benches::figures::{self, Problem, Size};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// All figures in the order in which they are taken. Those of one row are seen in one go.
const FIGURES: [&[&str]; 18] = [
    &["waiting"],
    &["chain_sqlite"],
    &["call"],
    &["latency_sqlite"],
    &["fan_out_1k"],
    &["fan_out_10k"],
    &["nested"],
    &["chain_long_sqlite"],
    &["chain_sqlite_10k"],
    &["chain_postgres"],
    &["chain_postgres_two"],
    &["recover_5k"],
    &["cold_start"],
    &["replay_per_call"],
    &["parked_disk", "parked_memory", "parked_speed"],
    &["hot_memory"],
    &["idle_cpu"],
    &["process_wall"],
];

#[derive(Parser)]
#[command(about = "What Tasker costs, figure by figure, beside the floor")]
struct Options {
    /// Print the figures once more as JSON, on the last line.
    #[arg(long)]
    json: bool,
    /// A twentieth of the full size: shows that each figure can be taken. Its ratios say little.
    #[arg(long)]
    quick: bool,
    /// Only this figure; may be given more than once.
    #[arg(long = "figure", value_parser = FIGURES.concat())]
    figures: Vec<String>,
    /// Be a second engine process on this schema: the report starts itself so.
    #[arg(long, hide = true)]
    postgres_worker: Option<String>,
    /// Take the run of this file up: the report starts itself so.
    #[arg(long, hide = true)]
    recover: Option<PathBuf>,
    /// Have so many frames wait, with this budget in MiB: the report starts itself so.
    #[arg(long, hide = true, num_args = 2)]
    frames: Option<Vec<u32>>,
    /// Read the rows of this file: the report starts itself so.
    #[arg(long, hide = true)]
    read_rows: Option<PathBuf>,
}

impl Options {
    const fn size(&self) -> Size {
        if self.quick { Size::Quick } else { Size::Full }
    }
}

fn main() -> ExitCode {
    tasker_core::wall::child_main();
    take_figures()
}

#[tokio::main]
async fn take_figures() -> ExitCode {
    let options = Options::parse();
    // Where a host's tasks are, too: the thread that blocks on the runtime has no part in its work, and costs a switch for each wake-up.
    let taken = tokio::spawn(async move { report(&options).await });
    let taken = taken.await.unwrap_or_else(|panic| Err(panic.into()));
    match taken {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("report: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn report(options: &Options) -> Result<(), Problem> {
    if let Some(schema) = &options.postgres_worker {
        return figures::postgres::work(schema).await;
    }
    if let Some(path) = &options.recover {
        return figures::recover::recover(path).await;
    }
    if let Some(path) = &options.read_rows {
        return figures::recover::read_rows(path).await;
    }
    if let Some(&[count, budget_mb]) = options.frames.as_deref() {
        return figures::frames(count, budget_mb as usize).await;
    }
    let is_wanted = |name: &&'static str| {
        options.figures.is_empty() || options.figures.iter().any(|it| it == name)
    };
    let wanted: Vec<Vec<&'static str>> = FIGURES
        .iter()
        .map(|row| row.iter().copied().filter(is_wanted).collect())
        .filter(|row: &Vec<_>| !row.is_empty())
        .collect();
    let alone = wanted.len() == 1;
    let (mut taken, mut problems) = (Vec::new(), Vec::new());
    for row in wanted {
        let (figures, complete) = if alone {
            take_here(&row, options.size()).await?
        } else {
            match take_apart(&row, options.quick).await {
                Ok(figures) => figures,
                Err(problem) => (absent(&row, &problem)?, false),
            }
        };
        taken.push(figures);
        if !complete {
            problems.extend(row);
        }
    }
    if options.json {
        say(format_args!("[{}]", taken.join(",")))?;
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(format!("could not be taken: {}", problems.join(", ")).into())
    }
}

/// Prints a line; whoever reads may be gone.
fn say(line: impl std::fmt::Display) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

/// Takes and prints figures: them as JSON, and whether all could be taken.
async fn take_here(names: &[&'static str], size: Size) -> Result<(String, bool), Problem> {
    let (mut taken, mut complete) = (Vec::new(), true);
    for name in names {
        match take(name, size).await {
            Ok(figure) => {
                say(&figure)?;
                taken.push(serde_json::to_string(&figure)?);
            }
            Err(problem) => {
                taken.push(absent(&[name], &problem)?);
                complete = false;
            }
        }
    }
    Ok((taken.join(","), complete))
}

/// Prints that these figures could not be taken: them as JSON.
fn absent(names: &[&'static str], problem: &Problem) -> Result<String, Problem> {
    let mut absent = Vec::new();
    for name in names {
        let figure = Figure::absent(name, "", problem.to_string());
        say(&figure)?;
        absent.push(serde_json::to_string(&figure)?);
    }
    Ok(absent.join(","))
}

/// The same in a process of its own.
async fn take_apart(names: &[&'static str], quick: bool) -> Result<(String, bool), Problem> {
    let mut report = Command::new(std::env::current_exe()?);
    report.args(names.iter().flat_map(|name| ["--figure", name]));
    report.arg("--json").args(quick.then_some("--quick"));
    let mut report = report.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let lines = report.stdout.take().ok_or("its output is not there")?;
    let mut lines = BufReader::new(lines).lines();
    let mut figures = None;
    while let Some(line) = lines.next_line().await? {
        match line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            Some(json) => figures = Some(json.to_owned()),
            None => say(&line)?,
        }
    }
    let status = report.wait().await?;
    let figures = figures.ok_or_else(|| format!("its process ended with {status}"))?;
    Ok((figures, status.success()))
}

async fn take(name: &str, size: Size) -> Result<Figure, Problem> {
    match name {
        "chain_sqlite" => figures::chain_sqlite(size).await,
        "chain_long_sqlite" => figures::chain_long_sqlite(size).await,
        "latency_sqlite" => figures::latency_sqlite(size).await,
        "fan_out_1k" => figures::fan_out_1k(size).await,
        "fan_out_10k" => figures::fan_out_10k(size).await,
        "chain_sqlite_10k" => figures::chain_sqlite_10k(size).await,
        "nested" => figures::nested(size).await,
        "recover_5k" => figures::recover_5k(size).await,
        "cold_start" => figures::cold_start(size).await,
        "replay_per_call" => {
            tokio::task::spawn_blocking(move || figures::replay_per_call(size)).await?
        }
        "parked_disk" => figures::parked_disk(size).await,
        "parked_memory" => figures::parked_memory(size).await,
        "parked_speed" => figures::parked_speed(size).await,
        "hot_memory" => figures::hot_memory(size).await,
        "idle_cpu" => figures::idle_cpu(size).await,
        "chain_postgres" => figures::chain_postgres(size).await,
        "chain_postgres_two" => figures::chain_postgres_two(size).await,
        "waiting" => figures::waiting(size).await,
        "process_wall" => figures::process_wall(size).await,
        "call" => tokio::task::spawn_blocking(move || figures::call(size)).await?,
        other => Err(format!("there is no figure {other}").into()),
    }
}
