//! The parent: keeps the load up, kills and restarts workers, waits for the end, and audits it.

use std::error::Error;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use serde_json::Value;
use tasker_core::{Engine, RunFilter, RunStatus, TaskRunId};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::audit::audit;
use crate::logs::Log;
use crate::options::Options;
use crate::server::Server;
use crate::{store, tasks};

/// The log of the kills.
pub(crate) const KILLED: &str = "killed.log";
/// How long the runs that are open when the load ends may take.
const END: Duration = Duration::from_mins(2);
/// How often the load is topped up.
const PACE: Duration = Duration::from_millis(50);
/// How long a request may go without an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs it all; whether the verdict is good.
pub(crate) async fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    std::fs::create_dir_all(&options.folder)?;
    let mut server = Server::start(options).await?;
    let url = server
        .as_ref()
        .and_then(|server| server.url().map(str::to_owned));
    let storage = store::open(options, url.as_deref()).await?;
    let client = Engine::builder()
        .shared_storage(Arc::clone(&storage))
        .client()
        .await?;
    for (_, source) in tasks::TASKS {
        client.publish(*source).await?;
    }
    let mut runs: Vec<(TaskRunId, Option<Value>)> = Vec::new();
    let mut herd = Herd::start(options, url.as_deref())?;
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let load = async {
        while Instant::now() < end {
            let open = open_runs(&client, options.load).await?;
            for _ in open..options.load {
                let (task, input, result) = tasks::run(runs.len() as u64);
                // A reply that is lost: the same key finds the same run.
                let key = format!("run-{}", runs.len());
                let run = insist(async || client.submit(task, &input).idempotency_key(&key).await);
                runs.push((run.await?.id(), result));
            }
            sleep(PACE).await;
        }
        Ok::<(), Box<dyn Error>>(())
    };
    let restarts = async {
        match &mut server {
            Some(server) => server.restart_at_random(options, end).await,
            None => Ok(()),
        }
    };
    // All end by themselves: a kill that was begun is logged, a restart that was begun is over.
    tokio::try_join!(load, herd.kill_at_random(options, end), restarts)?;
    if !options.json {
        println!("{} runs submitted; waiting for their end", runs.len());
    }
    let ended = wait_for_end(&client, storage.as_ref(), &runs);
    if timeout(END, ended).await.is_err() {
        eprintln!(
            "some runs did not end, or were not cleaned, within {} s",
            END.as_secs()
        );
    }
    herd.close().await?;
    let verdict = audit(&client, storage.as_ref(), options, &runs).await?;
    client.shutdown().await?;
    drop(client);
    drop(storage);
    if let Some(server) = server {
        server.stop().await?;
    }
    if !options.keep {
        std::fs::remove_dir_all(&options.folder)?;
        if url.is_none() {
            store::clean(options).await?;
        }
    }
    println!("{}", serde_json::to_string(&verdict)?);
    Ok(verdict.is_good())
}

/// Asks until there is an answer: the server may be restarting.
async fn insist<T, E: Error + 'static, F: Future<Output = Result<T, E>>>(
    mut request: impl FnMut() -> F,
) -> Result<T, Box<dyn Error>> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match request().await {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= give_up => return Err(error.into()),
            Err(_) => sleep(PACE).await,
        }
    }
}

/// Runs that have not ended, at most `max`.
async fn open_runs(client: &Engine, max: usize) -> Result<usize, Box<dyn Error>> {
    let open = RunFilter {
        statuses: vec![
            RunStatus::Queued,
            RunStatus::Processing,
            RunStatus::Suspended,
            RunStatus::Blocked,
        ],
        ..RunFilter::default()
    };
    Ok(insist(async || client.runs(&open, max).await)
        .await?
        .runs
        .len())
}

/// Waits until every run has ended and its rows are gone.
async fn wait_for_end(
    client: &Engine,
    storage: &dyn tasker_core::Storage,
    runs: &[(TaskRunId, Option<Value>)],
) -> Result<(), Box<dyn Error>> {
    while open_runs(client, 1).await? > 0 {
        sleep(PACE).await;
    }
    for (id, _) in runs {
        while !insist(async || storage.stack_runs(*id).await)
            .await?
            .is_empty()
        {
            sleep(PACE).await;
        }
    }
    Ok(())
}

/// The worker processes.
struct Herd {
    /// The server, if the environment does not say.
    url: Option<String>,
    workers: Vec<Child>,
    killed: Log,
}

impl Herd {
    fn start(options: &Options, url: Option<&str>) -> Result<Self, Box<dyn Error>> {
        let workers = (0..options.workers)
            .map(|number| spawn(options, number, url))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            url: url.map(str::to_owned),
            workers,
            killed: Log::open(&options.folder, KILLED)?,
        })
    }

    /// Kills one after the other and starts it again, until `end`.
    async fn kill_at_random(
        &mut self,
        options: &Options,
        end: Instant,
    ) -> Result<(), Box<dyn Error>> {
        if options.kill_every_ms == 0 {
            return Ok(());
        }
        loop {
            let pause = rand::rng().random_range(0..=options.kill_every_ms * 2);
            sleep(Duration::from_millis(pause)).await;
            if Instant::now() >= end {
                return Ok(());
            }
            let number = rand::rng().random_range(0..self.workers.len());
            let worker = &mut self.workers[number];
            let Some(process) = worker.id() else {
                return Err(
                    format!("worker {number} ended by itself: {:?}", worker.wait().await).into(),
                );
            };
            worker.start_kill()?;
            // It may still do something until it is really gone: that is when it counts as killed.
            let status = worker.wait().await?;
            if status.code().is_some() {
                return Err(format!("worker {number} ended by itself: {status}").into());
            }
            self.killed.line("kill", process)?;
            self.workers[number] = spawn(options, number, self.url.as_deref())?;
        }
    }

    /// Lets the workers finish.
    async fn close(&mut self) -> Result<(), Box<dyn Error>> {
        for worker in &mut self.workers {
            drop(worker.stdin.take());
        }
        for worker in &mut self.workers {
            if timeout(Duration::from_secs(20), worker.wait())
                .await
                .is_err()
            {
                worker.kill().await?;
            }
        }
        Ok(())
    }
}

fn spawn(options: &Options, number: usize, url: Option<&str>) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(url) = url {
        command.env(store::URL, url);
    }
    command
        .args(options.of_worker(number))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
}
