//! The floors by themselves, without an engine in the process: rows as an engine leaves them, written against the bare drivers.
//!
//! ```text
//! cargo run --release -p tasker-benches --bin floor -- sqlite                       2,000 runs of 10 calls, 256 turns a commit
//! cargo run --release -p tasker-benches --bin floor -- sqlite --batch 40
//! .config/postgres.sh run cargo run --release -p tasker-benches --bin floor -- postgres
//! ```
#![allow(
    clippy::redundant_closure_for_method_calls,
    reason = "a method of a type with a lifetime is not general enough where the closure is"
)]

#[path = "../src/clock.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "files of the library, which has more figures than chains"
)]
mod clock;
#[expect(unreachable_pub, reason = "a file of the library")]
mod postgres;
#[expect(
    dead_code,
    unreachable_pub,
    reason = "files of the library, which has more figures than chains"
)]
mod sqlite;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use clock::Stopwatch;

type Problem = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Database {
    /// A file in a temporary folder.
    Sqlite,
    /// A schema of its own on the server of `TASKER_TEST_POSTGRES_URL` or `DATABASE_URL`.
    Postgres,
}

#[derive(Parser)]
#[command(about = "Chains of calls as an engine stores them, written by the bare driver")]
struct Options {
    database: Database,
    /// Chains.
    #[arg(long, default_value_t = 2_000)]
    runs: u32,
    /// Calls of each.
    #[arg(long, default_value_t = 10)]
    calls: u32,
    /// Turns in one commit.
    #[arg(long, default_value_t = 256)]
    batch: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    match write(&Options::parse()).await {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("floor: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn write(options: &Options) -> Result<String, Problem> {
    let &Options {
        database,
        runs,
        calls,
        batch,
    } = options;
    let (seconds, cpu) = match database {
        Database::Sqlite => {
            let folder = tempfile::tempdir()?;
            let mut floor = sqlite::Floor::open(&folder.path().join("floor.db"))?;
            let watch = Stopwatch::start();
            floor.chains(runs, calls, batch)?;
            (watch.seconds(), watch.cpu_seconds())
        }
        Database::Postgres => {
            let url = postgres::url()?;
            let schema = format!("floor_{}", uuid::Uuid::now_v7().simple());
            let mut floor = postgres::Floor::open(&url, &schema).await?;
            let watch = Stopwatch::start();
            floor.chains(runs, calls, batch).await?;
            let seen = (watch.seconds(), watch.cpu_seconds());
            drop(floor);
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            client
                .batch_execute(&format!("DROP SCHEMA {schema} CASCADE"))
                .await?;
            seen
        }
    };
    let steps = f64::from(runs) * f64::from(calls);
    Ok(format!(
        "{runs} runs x {calls} calls, {batch} turns a commit: {:.0} steps/s, {:.1} us CPU a step here",
        steps / seconds,
        cpu * 1e6 / steps
    ))
}
