//! A worker process: one engine that works until its standard input ends, or until it is killed.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tasker_core::{Engine, Service, ServiceError, ServiceProxy};

use crate::logs::Log;
use crate::options::Options;
use crate::store;

/// The log of the services.
pub(crate) const PERFORMED: &str = "performed.log";
/// How often a start is tried again.
const START_TRIES: u32 = 300;
/// And after how long.
const START_PAUSE: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
struct Add {
    a: u64,
    b: u64,
}

pub(crate) async fn run(options: &Options, number: usize) -> Result<(), Box<dyn Error>> {
    let log = Arc::new(Log::open(&options.folder, PERFORMED)?);
    let world = Service::with_state("world", log)
        .method("add", async |call, add: Add| {
            perform(&call.state, &call.call.idempotency_key)?;
            Ok(add.a + add.b)
        })
        .method("refuse", async |call, _: serde_json::Value| {
            perform(&call.state, &call.call.idempotency_key)?;
            Err::<(), _>(ServiceError::validation("the world says no"))
        });
    let engine = start(options, number, world).await?;
    // The parent closes it at the end; it closes by itself when the parent is gone.
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()))
        .await??;
    engine.shutdown().await?;
    Ok(())
}

/// A worker that is started while its server is down waits for it.
async fn start<S: ServiceProxy>(
    options: &Options,
    number: usize,
    world: S,
) -> Result<Engine, Box<dyn Error>> {
    let world = Arc::new(world);
    let mut tries = 0;
    loop {
        match start_once(options, number, Arc::clone(&world)).await {
            Ok(engine) => return Ok(engine),
            Err(error) if tries == START_TRIES => return Err(error),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(START_PAUSE).await;
    }
}

async fn start_once<S: ServiceProxy>(
    options: &Options,
    number: usize,
    world: Arc<S>,
) -> Result<Engine, Box<dyn Error>> {
    let engine = Engine::builder()
        .shared_storage(store::open(options, None).await?)
        .service(world)
        .lease_ms(options.lease_ms)
        .poll_ms(200)
        .threads(1)
        // Here workers die of the parent's doing, not of a frame's: no frame is to blame for it.
        .poison_limit(1_000_000)
        .clean_every_ms(500)
        .worker_name(format!("chaos-{number}-{}", std::process::id()))
        .start()
        .await?;
    Ok(engine)
}

fn perform(log: &Log, key: &str) -> Result<(), ServiceError> {
    log.line(key, std::process::id())
        .map_err(ServiceError::internal)
}
