//! The floors by themselves, without an engine in the process: rows as an engine leaves them, written against the bare drivers.
//!
//! ```text
//! cargo run --release -p tasker-benches --bin floor -- sqlite                       2,000 runs of 10 calls, 256 turns a commit
//! cargo run --release -p tasker-benches --bin floor -- sqlite --batch 40
//! cargo run --release -p tasker-benches --bin floor -- sqlite --rows fan-out            one run of 2,000 calls; or nested, or submit
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
#[expect(unreachable_pub, reason = "a file of the library")]
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

/// Whose rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rows {
    /// Runs of calls one after the other.
    Chains,
    /// One run with as many calls as `--runs` says at one time.
    FanOut,
    /// Runs whose task calls a task which calls a task.
    Nested,
    /// Submitted runs, each in a commit of its own.
    Submit,
}

#[derive(Parser)]
#[command(about = "Rows as an engine stores them, written by the bare driver")]
struct Options {
    database: Database,
    /// Of SQLite; on Postgres they are those of chains.
    #[arg(long, value_enum, default_value_t = Rows::Chains)]
    rows: Rows,
    /// Runs.
    #[arg(long, default_value_t = 2_000)]
    runs: u32,
    /// Calls of each, in chains.
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
        rows,
        runs,
        calls,
        batch,
    } = options;
    let (seconds, cpu) = match database {
        Database::Sqlite => {
            let folder = tempfile::tempdir()?;
            let mut floor = sqlite::Floor::open(&folder.path().join("floor.db"))?;
            let watch = Stopwatch::start();
            match rows {
                Rows::Chains => floor.chains(runs, calls, batch)?,
                Rows::FanOut => floor.fan_out(runs, batch as u32)?,
                Rows::Nested => floor.nested(runs, batch)?,
                Rows::Submit => {
                    for _ in 0..runs {
                        floor.submit()?;
                    }
                }
            }
            (watch.seconds(), watch.cpu_seconds())
        }
        Database::Postgres if rows != Rows::Chains => {
            return Err("on Postgres the rows are those of chains; leave --rows out".into());
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
    let (what, steps) = match rows {
        Rows::Chains => (
            format!("{runs} runs x {calls} calls, {batch} turns a commit"),
            f64::from(runs) * f64::from(calls),
        ),
        Rows::FanOut => (
            format!("one run x {runs} calls, {batch} answers a commit"),
            f64::from(runs),
        ),
        Rows::Nested => (
            format!("{runs} runs x child x grandchild, {batch} a commit"),
            f64::from(runs),
        ),
        Rows::Submit => (
            format!("{runs} runs submitted, each in a commit"),
            f64::from(runs),
        ),
    };
    Ok(format!(
        "{what}: {:.0} ms, {:.0} /s, {:.1} us CPU each here",
        seconds * 1e3,
        steps / seconds,
        cpu * 1e6 / steps
    ))
}
