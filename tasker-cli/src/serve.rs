//! `tasker serve`: an engine that works, and its services on ports, until a signal ends it.

use std::future::IntoFuture;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::future::join_all;
use serde_json::json;
use tasker_core::{Clock, Drive, Engine, SystemClock};
use tasker_proxies::Secret;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::args::{DriveBy, Serve};
use crate::command::Here;
use crate::error::CliError;
use crate::host::{self, Database};
use crate::http::{self, RouterOptions};
use crate::registry::{self, Entry, PLACES};

/// How long requests under way may take after a signal; runs have the same time once more.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves until SIGINT or SIGTERM. A second signal ends the process at once.
pub(crate) async fn perform(here: Here, args: &Serve) -> Result<(), CliError> {
    let stop = CancellationToken::new();
    let options = options(&here, args, &stop)?;
    let storage = host::storage(&here.config).await?;
    let build = || host::builder(&here.config, Arc::clone(&storage), &here.dir);
    let engine = match args.drive {
        DriveBy::Engine => build()?.start().await?,
        DriveBy::Post => build()?.client().await?,
    };
    let names = names(&here, &engine, options.token.is_some())?;
    let by_hand = if names.contains(&PROCESSOR) {
        // Whatever it takes up it lays down again at once, so that any process can take the next step.
        let name = format!("{PROCESSOR}-{}", std::process::id());
        let builder = build()?
            .drive(Drive::Manual)
            .threads(1)
            .park_always(true)
            .worker_name(name);
        Some(builder.start().await?)
    } else {
        None
    };
    let served = serve(
        &here,
        &names,
        &engine,
        by_hand.as_ref(),
        &options,
        args.drive,
    )
    .await;
    // In either case work is handed back before the process ends.
    if let Some(by_hand) = by_hand {
        by_hand.shutdown_within(DRAIN.as_millis() as u64).await?;
    }
    engine.shutdown_within(DRAIN.as_millis() as u64).await?;
    served
}

const PROCESSOR: &str = "simple-stack-processor";
const TASKS: &str = "task-executor";
const EXECUTOR: &str = "deno-executor";

fn options(here: &Here, args: &Serve, stop: &CancellationToken) -> Result<RouterOptions, CliError> {
    let token = here.config.get("serve.token").map(Secret::new);
    let address = bind_address(here)?;
    if !address.is_loopback() && token.is_none() && !args.allow_unauthenticated {
        return Err(here.config.wrong(
            "serve.bind",
            "can be reached from other machines, and there is no token: set TASKER_TOKEN, or say --allow-unauthenticated",
        ));
    }
    Ok(RouterOptions {
        any_host: args.allow_unauthenticated && !address.is_loopback(),
        token,
        stop: stop.clone(),
        ..RouterOptions::default()
    })
}

fn bind_address(here: &Here) -> Result<IpAddr, CliError> {
    match here.config.text("serve.bind") {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        text => text.parse().map_err(|_| {
            here.config.wrong(
                "serve.bind",
                "is no address; it looks like 127.0.0.1 or 0.0.0.0",
            )
        }),
    }
}

/// The services to serve, in the order of their places.
fn names(here: &Here, engine: &Engine, has_token: bool) -> Result<Vec<&'static str>, CliError> {
    let offered: Vec<&'static str> = PLACES
        .into_iter()
        .filter(|name| {
            [EXECUTOR, PROCESSOR, TASKS].contains(name) || engine.services().contains(name)
        })
        .collect();
    let asked = here.config.list("serve.services").into_iter();
    let asked: Vec<&str> = asked
        .map(|name| if name == "executor" { EXECUTOR } else { name })
        .collect();
    if asked.is_empty() {
        // Secrets are not handed to whoever can reach a port of this machine.
        return Ok(offered
            .into_iter()
            .filter(|name| *name != "keystore" || has_token)
            .collect());
    }
    for name in &asked {
        if !offered.contains(name) {
            let problem = format!(
                "names {name:?}, which is not offered here; offered are {}",
                offered.join(", ")
            );
            return Err(here.config.wrong("serve.services", &problem));
        }
    }
    if asked.contains(&"keystore") && !has_token {
        return Err(here.config.wrong(
            "serve.services",
            "names the keystore, which is served with a token only: set TASKER_TOKEN",
        ));
    }
    Ok(offered
        .into_iter()
        .filter(|name| asked.contains(name))
        .collect())
}

async fn serve(
    here: &Here,
    names: &[&'static str],
    engine: &Engine,
    by_hand: Option<&Engine>,
    options: &RouterOptions,
    drive: DriveBy,
) -> Result<(), CliError> {
    let works_on = match drive {
        DriveBy::Engine => Some(Database::of(&here.config)?.shown()),
        DriveBy::Post => None,
    };
    let mut servers = Vec::new();
    let mut entries = Vec::new();
    for name in names {
        let listener = listen(here, name).await?;
        let address = listener.local_addr().map_err(CliError::io(format!(
            "the port of {name} could not be read"
        )))?;
        let url = format!("http://{}", reachable(address));
        entries.push(Entry {
            name: (*name).to_owned(),
            port: address.port(),
            url,
        });
        servers.push((listener, router(name, engine, by_hand, options)));
    }
    let mut signals = Signals::new()?;
    let written = registry::write(
        &here.dir,
        entries.clone(),
        works_on,
        SystemClock::default().now(),
    )?;
    here.output
        .answer(&json!({ "services": entries }), || said(&entries))?;
    for entry in &entries {
        tracing::info!(service = %entry.name, url = %entry.url, "serving");
    }
    let servers = servers.into_iter().map(|(listener, router)| {
        let stop = options.stop.clone();
        tokio::spawn(
            axum::serve(listener, router)
                .with_graceful_shutdown(stop.cancelled_owned())
                .into_future(),
        )
    });
    let servers: Vec<_> = servers.collect();
    let aborts: Vec<_> = servers
        .iter()
        .map(tokio::task::JoinHandle::abort_handle)
        .collect();
    signals.next().await;
    tracing::info!("stopping: requests and turns under way are finished");
    drop(written);
    options.stop.cancel();
    tokio::spawn(async move {
        signals.next().await;
        tracing::warn!("stopped at once by a second signal");
        std::process::exit(1);
    });
    if tokio::time::timeout(DRAIN, join_all(servers))
        .await
        .is_err()
    {
        tracing::warn!(
            "requests that took longer than {} s were cut off",
            DRAIN.as_secs()
        );
        for abort in aborts {
            abort.abort();
        }
    }
    Ok(())
}

fn router(
    name: &str,
    engine: &Engine,
    by_hand: Option<&Engine>,
    options: &RouterOptions,
) -> Router {
    match (name, by_hand) {
        (EXECUTOR, _) => http::executor(engine, options.clone()),
        (TASKS, _) => http::task_executor(engine.clone(), options.clone()),
        (PROCESSOR, Some(by_hand)) => http::stack_processor(by_hand.clone(), options.clone()),
        _ => http::service(engine.clone(), name, options.clone()),
    }
}

/// Listens on the service's port: its place after the base, or any free one when the base is 0.
async fn listen(here: &Here, name: &str) -> Result<TcpListener, CliError> {
    let base = here.config.port()?;
    let place = PLACES
        .iter()
        .position(|place| *place == name)
        .unwrap_or_default() as u16;
    let port = match base {
        0 => 0,
        base => base.checked_add(place).ok_or_else(|| {
            here.config.wrong(
                "serve.port",
                "leaves no room for the ports after it; take one below 65528",
            )
        })?,
    };
    let address = SocketAddr::new(bind_address(here)?, port);
    TcpListener::bind(address).await.map_err(|source| CliError::Io {
        what: match source.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("{name} cannot listen on {address}: the port is in use; stop what uses it, or choose another base with --port")
            }
            _ => format!("{name} cannot listen on {address}"),
        },
        source,
    })
}

/// The address as others on this machine reach it.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn said(entries: &[Entry]) -> String {
    let lines = entries
        .iter()
        .map(|entry| format!("  {:25} → {}", entry.name, entry.url));
    let end = ["registry: .service-registry.json   stop: Ctrl+C".to_owned()];
    lines.chain(end).collect::<Vec<String>>().join("\n")
}

/// SIGINT and SIGTERM.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> Result<Self, CliError> {
        use tokio::signal::unix::{SignalKind, signal};
        let hear = |kind| signal(kind).map_err(CliError::io("signals cannot be heard"));
        Ok(Self {
            terminate: hear(SignalKind::terminate())?,
            interrupt: hear(SignalKind::interrupt())?,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    #[expect(
        clippy::unnecessary_wraps,
        reason = "as on Unix, where signals may not be heard"
    )]
    fn new() -> Result<Self, CliError> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
