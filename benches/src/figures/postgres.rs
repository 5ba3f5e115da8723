//! Figures of runs on PostgreSQL with `fsync` and `synchronous_commit` on, beside the same rows against bare tokio-postgres.

use std::process::Stdio;

use tasker_adaptor_postgres::PostgresStorage;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio_postgres::NoTls;

use super::bench::{Bench, engine};
use super::{Problem, Size};
use crate::clock::Stopwatch;
use crate::figure::{BATCH_OF_FLOOR, Figure, Goal, median};
use crate::floor_postgres::{Floor, url};

const CALLS: u32 = 10;
const GOAL: Goal = Goal::AtLeast(0.5, "at least 0.5 of the floor");
/// Below this many steps a second at 256 turns a commit the floor is no floor: half of what a machine of this kind does.
const FLOOR_AT_256: f64 = 30_500.0;
/// The hidden argument of the report binary that makes it a second engine process on a schema.
pub const WORKER: &str = "--postgres-worker";

/// A schema of its own on the server of the environment.
struct Server {
    url: String,
    schema: String,
}

impl Server {
    /// `Err` says why there is none to measure on.
    async fn find() -> Result<Self, String> {
        let url = url()?;
        let (client, connection) = tokio_postgres::connect(&url, NoTls)
            .await
            .map_err(|error| format!("the server of the environment does not answer: {error}"))?;
        let connection = tokio::spawn(connection);
        for setting in ["fsync", "synchronous_commit"] {
            let value: String = match client.query_one(&format!("SHOW {setting}"), &[]).await {
                Ok(row) => row.get(0),
                Err(error) => return Err(format!("{setting} cannot be read: {error}")),
            };
            if value != "on" {
                return Err(format!("{setting} is {value}; set it on to measure"));
            }
        }
        connection.abort();
        Ok(Self {
            url,
            schema: format!("bench_{}", uuid::Uuid::now_v7().simple()),
        })
    }

    async fn bench(&self) -> Result<Bench, Problem> {
        Bench::start(storage(&self.url, &self.schema).await?).await
    }

    async fn floor(&self) -> Result<Floor, Problem> {
        Ok(Floor::open(&self.url, &format!("{}_floor", self.schema)).await?)
    }

    async fn clean(&self) -> Result<(), Problem> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        let connection = tokio::spawn(connection);
        let schema = &self.schema;
        client
            .batch_execute(&format!(
                "DROP SCHEMA IF EXISTS {schema} CASCADE; DROP SCHEMA IF EXISTS {schema}_floor CASCADE"
            ))
            .await?;
        connection.abort();
        Ok(())
    }
}

async fn storage(url: &str, schema: &str) -> Result<PostgresStorage, Problem> {
    Ok(PostgresStorage::options(url)
        .schema(schema)
        .connect()
        .await?)
}

/// `chain_postgres`: 2,000 runs of 10 calls.
pub async fn chain_postgres(size: Size) -> Result<Figure, Problem> {
    if let Err(why) = Server::find().await {
        return Ok(Figure::absent("chain_postgres", "steps/s", why));
    }
    let runs = size.of(2_000);
    let steps = f64::from(runs) * f64::from(CALLS);
    let (mut seconds, mut cpu, mut batches) = (Vec::new(), Vec::new(), Vec::new());
    let (mut floors, mut floor_at_256) = (Vec::new(), f64::INFINITY);
    for _ in 0..size.rounds() {
        // Tables without a history for each.
        let server = Server::find().await?;
        let bench = server.bench().await?;
        let took = bench.chains(runs, CALLS).await?;
        seconds.push(took.seconds);
        cpu.push(took.cpu_us);
        batches.push(took.batch);
        bench.engine.shutdown().await?;

        let mut floor = server.floor().await?;
        let watch = Stopwatch::start();
        floor
            .chains(runs, CALLS, took.batch.round() as usize)
            .await?;
        floors.push(watch.seconds());
        let watch = Stopwatch::start();
        floor.chains(runs, CALLS, BATCH_OF_FLOOR).await?;
        floor_at_256 = floor_at_256.min(watch.seconds());
        drop(floor);
        server.clean().await?;
    }
    let (seconds, cpu, batch) = (median(seconds), median(cpu), median(batches));

    let figure = Figure::new(
        "chain_postgres",
        (steps / seconds, "steps/s"),
        steps / median(floors),
        GOAL,
        format!(
            "{runs} runs x {CALLS} calls in {seconds:.2} s, {cpu:.1} us CPU a step here, {batch:.0} turns a commit",
        ),
    );
    Ok(match size {
        Size::Quick => figure,
        Size::Full => figure.unless_suspect(steps / floor_at_256, FLOOR_AT_256),
    })
}

/// `chain_postgres_two`: the same by two engine processes, beside one.
pub async fn chain_postgres_two(size: Size) -> Result<Figure, Problem> {
    if let Err(why) = Server::find().await {
        return Ok(Figure::absent("chain_postgres_two", "steps/s", why));
    }
    let runs = size.of(2_000);
    let (mut twos, mut ones, mut done_here) = (Vec::new(), Vec::new(), 0);
    for _ in 0..size.rounds() {
        // Tables without a history for each.
        let server = Server::find().await?;
        let bench = server.bench().await?;
        let mut second = Second::start(&server).await?;
        let before = bench.meter.commits().1;
        twos.push(bench.chains(runs, CALLS).await?.seconds);
        done_here += bench.meter.commits().1 - before;
        second.stop().await?;
        ones.push(bench.chains(runs, CALLS).await?.seconds);
        bench.engine.shutdown().await?;
        server.clean().await?;
    }
    let (two, one) = (median(twos), median(ones));

    let steps = f64::from(runs) * f64::from(CALLS);
    let turns = f64::from(runs * size.rounds()) * f64::from(CALLS + 1);
    Ok(Figure::new(
        "chain_postgres_two",
        (steps / two, "steps/s"),
        steps / one,
        Goal::AtLeast(
            0.9,
            "two processes together at least as fast as one, within the noise of 0.1",
        ),
        format!(
            "the submitting process did {:.0} % of the turns",
            100.0 * done_here as f64 / turns
        ),
    ))
}

/// A second engine process.
struct Second(Child);

impl Second {
    async fn start(server: &Server) -> Result<Self, Problem> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([WORKER, &server.schema])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child
            .stdout
            .as_mut()
            .ok_or("the second process has no output")?;
        // One byte says that it is there.
        output.read_u8().await?;
        Ok(Self(child))
    }

    async fn stop(&mut self) -> Result<(), Problem> {
        drop(self.0.stdin.take());
        self.0.wait().await?;
        Ok(())
    }
}

/// The second engine process: works until its input ends.
pub async fn work(schema: &str) -> Result<(), Problem> {
    let engine = engine(storage(&url()?, schema).await?).await?;
    println!();
    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await?;
    engine.shutdown().await?;
    Ok(())
}
