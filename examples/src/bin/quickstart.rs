//! The main job: publish JavaScript, run it durably on a file database, see what it did.
//!
//! ```text
//! cargo run --release -p tasker-examples --bin quickstart
//! cargo run --release -p tasker-examples --bin quickstart MY_TASK.js MY_INPUT.json
//! ```
//!
//! The first form runs `examples/tasks/order-report.js`. The second runs anybody's own task, with these services: `orders.find`,
//! `prices.price` and `echo`, whose every method returns its first argument. The tasks of `examples/tasks/` are published in both
//! and can be called by name. The database is a file in a temporary folder that is removed at the end, so that the program can be
//! repeated; a host would name a file of its own and find all runs again after a restart.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::{
    Engine, Json, Limits, LogCursor, RunError, RunHandle, Service, ServiceCall, ServiceError,
    ServiceProxy, TaskSource, service_fn, task,
};
use tasker_examples::indented;

type Problem = Box<dyn Error>;

/// What to run.
struct Job {
    /// The caller's own task; `None`: the order report.
    own: Option<TaskSource>,
    input: Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let done = tokio::select! {
        done = run(&arguments) => done,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("quickstart: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[PathBuf]) -> Result<(), Problem> {
    let limits = limits();
    let job = match arguments {
        [] => order_report()?,
        [task, input] => own_job(task, input, &limits)?,
        _ => {
            return Err(
                "give no arguments, or two: quickstart MY_TASK.js MY_INPUT.json (the input is one JSON value)"
                    .into(),
            );
        }
    };

    let folder = tempfile::tempdir()?;
    let file = folder.path().join("quickstart.db");
    let engine = Engine::builder()
        .storage(SqliteStorage::open(&file).await?)
        .service(orders())
        .service(prices())
        .service(echo())
        .limits(limits)
        .start()
        .await?;
    println!("database   {}", file.display());
    let done = run_on(&engine, job).await;
    engine.shutdown().await?;
    done
}

async fn run_on(engine: &Engine, job: Job) -> Result<(), Problem> {
    let tasks = Path::new(env!("CARGO_MANIFEST_DIR")).join("tasks");
    let mut published = engine.publish_dir(&tasks).await?;
    let name = match job.own {
        Some(source) => {
            let own = engine.publish_source(source).await?;
            let name = own.name.to_string();
            published.retain(|task| task.name != own.name);
            published.push(own);
            name
        }
        None => "order-report".to_owned(),
    };
    let names: Vec<&str> = published.iter().map(|task| task.name.as_str()).collect();
    println!("published  {}", names.join(", "));

    let run = engine.submit(name.as_str(), &job.input).await?;
    println!("run        {} of {name}\n", run.id());
    // Whatever comes of the run, its log and its trace are shown first.
    let outcome = run.outcome().await;
    print_log(&run).await?;
    println!("trace\n{}", run.trace().await?);
    match outcome {
        Ok(Some(result)) => println!("result\n{}", indented(result.text())),
        Ok(None) => println!("result\nundefined"),
        Err(RunError::Failed(failure)) => {
            let stack = failure.stack.clone().unwrap_or_default();
            return Err(format!("the run failed: {failure}\n{stack}").trim().into());
        }
        Err(other) => return Err(other.into()),
    }
    Ok(())
}

async fn print_log(run: &RunHandle) -> Result<(), Problem> {
    let mut cursor = LogCursor::default();
    loop {
        let page = run.log_page(cursor).await?;
        if page.lines.is_empty() {
            break;
        }
        for stored in page.lines {
            let line = stored.line;
            let data = line.data.map(|data| format!(" {data}")).unwrap_or_default();
            println!("{:5} {}{data}", line.level.as_str(), line.message);
        }
        cursor = page.next;
    }
    if cursor != LogCursor::default() {
        println!();
    }
    Ok(())
}

/// `examples/tasks/order-report.js` on five orders, one of which does not exist.
fn order_report() -> Result<Job, Problem> {
    let input = json!({ "orders": ["A-1", "A-2", "A-404", "A-3", "A-4"], "currency": "EUR" });
    Ok(Job {
        own: None,
        input: Json::from(&input)?,
    })
}

fn own_job(task: &Path, input: &Path, limits: &Limits) -> Result<Job, Problem> {
    let text = std::fs::read_to_string(input)
        .map_err(|error| format!("the input {} cannot be read: {error}", input.display()))?;
    // Some programs put a byte order mark before their JSON.
    let text = text.trim_start_matches('\u{feff}');
    let input =
        Json::parse(text).map_err(|error| format!("the input {}: {error}", input.display()))?;
    Ok(Job {
        own: Some(task::read_file(task, limits)?),
        input,
    })
}

/// Room for a file of somebody's own: the defaults are made for many small runs.
fn limits() -> Limits {
    Limits {
        payload_bytes: 64 << 20,
        memory_bytes: 512 << 20,
        ..Limits::default()
    }
}

#[derive(Deserialize)]
struct Find {
    id: String,
}

#[derive(Serialize)]
struct Order {
    id: String,
    items: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    sku: &'static str,
    quantity: u32,
}

/// Orders by id. An id that ends in `404` does not exist.
fn orders() -> impl ServiceProxy {
    Service::new("orders")
        .describe("Orders by id")
        .method("find", async |_, find: Find| {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if find.id.ends_with("404") {
                return Err(
                    ServiceError::not_found(format!("there is no order {}", find.id))
                        .with_code("NO_SUCH_ORDER"),
                );
            }
            let number = find.id.bytes().last().map_or(0, u32::from);
            let items = [("apple", 3), ("bread", 1), ("cheese", 2)]
                .into_iter()
                .take(1 + number as usize % 3)
                .map(|(sku, quantity)| Item { sku, quantity })
                .collect();
            Ok(Order { id: find.id, items })
        })
}

#[derive(Deserialize)]
struct Price {
    sku: String,
    currency: String,
}

/// Prices by article. State is a parameter, so that a closure needs no capture.
fn prices() -> impl ServiceProxy {
    Service::with_state(
        "prices",
        [("apple", 0.35), ("bread", 4.20), ("cheese", 7.95)],
    )
    .describe("Prices by article")
    .method("price", async |c, asked: Price| {
        tokio::time::sleep(Duration::from_millis(15)).await;
        let known = c.state.iter().find(|(sku, _)| *sku == asked.sku);
        let (_, price) =
            known.ok_or_else(|| ServiceError::not_found(format!("{} has no price", asked.sku)))?;
        Ok(json!({ "price": price, "currency": asked.currency }))
    })
}

/// Every method answers its first argument.
fn echo() -> impl ServiceProxy {
    service_fn("echo", async |call: ServiceCall| {
        Ok(call.args().first().cloned().unwrap_or_default())
    })
}
