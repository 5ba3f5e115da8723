//! `tasker serve`: an engine that works, its services on ports, and the services of the folder, until a signal ends it.

mod plan;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderValue;
use futures::future::join_all;
use serde_json::json;
use tasker_core::{Clock, Drive, Engine, EngineBuilder, SystemClock};
use tasker_proxies::Secret;
use tokio_util::sync::CancellationToken;

use crate::args::{DriveBy, Serve};
use crate::command::Here;
use crate::error::CliError;
use crate::folder::{self, Manifest, Place, Supervised};
use crate::host::{self, Database, Peer};
use crate::http::{self, ListenOptions, Metrics, RouterOptions};
use crate::registry::{self, Entry};
use crate::signals::Signals;
use plan::{ADMIN, EXECUTOR, PROCESSOR, TASKS};

/// Serves until SIGINT or SIGTERM. A second signal ends the process at once.
pub(crate) async fn perform(here: Here, args: &Serve) -> Result<(), CliError> {
    if args.deno || args.node || args.bun {
        here.output
            .note("--deno, --node and --bun change nothing: there is no runtime to choose");
    }
    let server = Server::plan(here, args)?;
    let storage = host::storage(&server.here.config).await?;
    let build = || server.builder(Arc::clone(&storage));
    let engine = match args.drive {
        DriveBy::Engine => host::start(build()?).await?,
        DriveBy::Post => build()?.client().await?,
    };
    let has_token = server.options.token.is_some();
    let manifests: Vec<Manifest> = server
        .places
        .iter()
        .map(|(manifest, _)| manifest.clone())
        .collect();
    let names = plan::names(&server.here, &engine, &manifests, has_token)?;
    let by_hand = if names.contains(&PROCESSOR) || args.drive == DriveBy::Post {
        // Whatever it takes up it lays down again at once, so that any process can take the next step.
        let builder = build()?.drive(Drive::Manual).threads(1).park_always(true);
        let name = format!("{}-{}", server.name(PROCESSOR), std::process::id());
        Some(host::start(builder.worker_name(name)).await?)
    } else {
        None
    };
    server.options.metrics.observe(&engine);
    if let Some(by_hand) = &by_hand {
        server.options.metrics.observe(by_hand);
    }
    let drain = server.drain.as_millis() as u64;
    let folder_stop = CancellationToken::new();
    let engines = Engines {
        engine: engine.clone(),
        by_hand: by_hand.clone(),
        drive: args.drive,
    };
    let served = server.serve(&names, engines, args, &folder_stop).await;
    // In either case work is handed back before the process ends, and services of the folder answer until then.
    if let Some(by_hand) = by_hand {
        by_hand.shutdown_within(drain).await?;
    }
    engine.shutdown_within(drain).await?;
    folder_stop.cancel();
    for supervised in served? {
        supervised.ended().await;
    }
    Ok(())
}

/// The engines of a server.
struct Engines {
    engine: Engine,
    by_hand: Option<Engine>,
    drive: DriveBy,
}

/// What is to be served, and how.
struct Server {
    here: Here,
    options: RouterOptions,
    listen: ListenOptions,
    drain: Duration,
    lease_ms: u64,
    /// Services of the folder.
    places: Vec<(Manifest, Place)>,
    peers: Vec<Peer>,
}

impl Server {
    fn plan(here: Here, args: &Serve) -> Result<Self, CliError> {
        let config = &here.config;
        let secs = |name| config.number(name, 1..=3_600).map(Duration::from_secs);
        let metrics = Metrics::default();
        let options = RouterOptions {
            cors_origins: origins(&here)?,
            body_timeout: secs("serve.body_timeout_secs")?,
            executor_program: host::sandbox_program(config)?,
            metrics: metrics.clone(),
            ..options(&here, args)?
        };
        let listen = ListenOptions {
            header_timeout: secs("serve.header_timeout_secs")?,
            max_connections: config.number("serve.max_connections", 1..=1_000_000)? as usize,
            metrics,
        };
        let (drain, lease_ms) = (
            secs("serve.drain_secs")?,
            config.number("serve.lease_ms", 1_000..=3_600_000)?,
        );
        let manifests = folder::read_all(config.text("services").as_ref())?;
        let places = plan::places(&here, manifests)?;
        let asked: Vec<String> = plan::asked(&here).into_iter().map(str::to_owned).collect();
        let ours = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
        let mut peers = host::peers(config, &here.dir, ours)?;
        for (manifest, place) in &places {
            peers.retain(|peer| peer.name != place.name);
            peers.push(Peer {
                name: place.name.clone(),
                url: place.url(),
                private: manifest.said.private,
            });
        }
        Ok(Self {
            here,
            options,
            listen,
            drain,
            lease_ms,
            places,
            peers,
        })
    }

    /// How this process is called: `SERVICE_NAME`, or what it is.
    fn name<'n>(&'n self, otherwise: &'n str) -> &'n str {
        self.here.config.get("serve.name").unwrap_or(otherwise)
    }

    fn builder(&self, storage: Arc<dyn tasker_core::Storage>) -> Result<EngineBuilder, CliError> {
        let builder =
            host::builder(&self.here.config, storage, &self.peers)?.lease_ms(self.lease_ms);
        Ok(match self.here.config.get("serve.name") {
            Some(name) => builder.worker_name(format!("{name}-{}", std::process::id())),
            None => builder,
        })
    }

    /// Serves until a signal; answers the services of the folder, which run on.
    async fn serve(
        self,
        names: &[&'static str],
        engines: Engines,
        args: &Serve,
        folder_stop: &CancellationToken,
    ) -> Result<Vec<Supervised>, CliError> {
        let mut signals = Signals::new()?;
        let stop = self.options.stop.clone();
        let (mut servers, mut entries) = (Vec::new(), Vec::new());
        for name in names {
            let listener = plan::listen(&self.here, name).await?;
            let address = listener.local_addr().map_err(CliError::io(format!(
                "the port of {name} could not be read"
            )))?;
            let url = format!("http://{}", plan::reachable(address));
            entries.push(Entry::new(name, address.port(), url));
            servers.push((listener, router(name, &engines, &self.options)));
        }
        let servers: Vec<_> = servers
            .into_iter()
            .map(|(listener, router)| {
                tokio::spawn(http::serve(
                    listener,
                    router,
                    self.listen.clone(),
                    stop.clone(),
                ))
            })
            .collect();
        let aborts: Vec<_> = servers
            .iter()
            .map(tokio::task::JoinHandle::abort_handle)
            .collect();
        let supervised = self.start_folder(&entries, folder_stop);
        let mut problems = BTreeMap::new();
        tokio::select! {
            ready = join_all(supervised.iter().map(Supervised::ready)) => {
                for (service, ready) in supervised.iter().zip(ready) {
                    if let Err(problem) = ready {
                        problems.insert(service.place.name.clone(), problem);
                    }
                }
            }
            () = signals.next() => {
                stop.cancel();
                return Ok(supervised);
            }
        }
        for (manifest, place) in &self.places {
            entries.push(Entry {
                private: manifest.said.private,
                ..Entry::new(&place.name, place.port, place.url())
            });
        }
        let written = self.announce(&entries, &problems, engines.drive)?;
        if args.watch {
            tokio::spawn(watch::watch(
                self.here.clone(),
                engines.engine.clone(),
                stop.clone(),
            ));
        }
        signals.next().await;
        tracing::info!("stopping: requests and turns under way are finished");
        drop(written);
        stop.cancel();
        tokio::spawn(async move {
            signals.next().await;
            tracing::warn!("stopped at once by a second signal");
            std::process::exit(1);
        });
        if tokio::time::timeout(self.drain, join_all(servers))
            .await
            .is_err()
        {
            tracing::warn!(
                "requests that took longer than {} s were cut off",
                self.drain.as_secs()
            );
            for abort in aborts {
                abort.abort();
            }
        }
        Ok(supervised)
    }

    /// Starts the services of the folder: each sees where the others are.
    fn start_folder(&self, entries: &[Entry], stop: &CancellationToken) -> Vec<Supervised> {
        let mut urls: BTreeMap<String, String> = BTreeMap::new();
        let built_in = entries.iter().map(|entry| (&entry.name, entry.url.clone()));
        let peers = self.peers.iter().map(|peer| (&peer.name, peer.url.clone()));
        for (name, url) in peers.chain(built_in) {
            let name = name.to_ascii_uppercase().replace('-', "_");
            urls.insert(format!("TASKER_SERVICE_{name}_URL"), url);
        }
        let start = |(manifest, place): &(Manifest, Place)| {
            tracing::info!(service = %place.name, port = place.port, "starting a service of the folder");
            Supervised::start(
                manifest.clone(),
                place.clone(),
                urls.clone(),
                self.options.metrics.clone(),
                stop.clone(),
            )
        };
        self.places.iter().map(start).collect()
    }

    /// Writes the registry and says what is served.
    fn announce(
        &self,
        entries: &[Entry],
        problems: &BTreeMap<String, String>,
        drive: DriveBy,
    ) -> Result<registry::Written, CliError> {
        let works_on = match drive {
            DriveBy::Engine => Some(Database::of(&self.here.config)?.shown()),
            DriveBy::Post => None,
        };
        let listed = entries.iter().map(|entry| Entry {
            works_on: works_on.clone().filter(|_| entry.name == TASKS),
            ..entry.clone()
        });
        let now = SystemClock::default().now();
        let written = registry::write(&self.here.dir, listed.collect(), now)?;
        let answer = json!({ "services": entries, "problems": problems });
        self.here
            .output
            .answer(&answer, || said(entries, problems))?;
        for entry in entries {
            if !problems.contains_key(&entry.name) {
                tracing::info!(service = %entry.name, url = %entry.url, "serving");
            }
        }
        Ok(written)
    }
}

fn options(here: &Here, args: &Serve) -> Result<RouterOptions, CliError> {
    let token = here.config.get("serve.token").map(Secret::new);
    let address = plan::bind_address(here)?;
    if !address.is_loopback() && token.is_none() && !args.allow_unauthenticated {
        return Err(here.config.wrong(
            "serve.bind",
            "can be reached from other machines, and there is no token: set TASKER_TOKEN, or say --allow-unauthenticated",
        ));
    }
    Ok(RouterOptions {
        any_host: args.allow_unauthenticated && !address.is_loopback(),
        token,
        ..RouterOptions::default()
    })
}

/// The origins whose web pages are answered.
fn origins(here: &Here) -> Result<Vec<HeaderValue>, CliError> {
    let origins = here.config.list("serve.cors_origins").into_iter();
    origins
        .map(|text| {
            let url = url::Url::parse(text).ok();
            let fit = url.filter(|url| {
                matches!(url.scheme(), "http" | "https")
                    && url.origin().ascii_serialization() == text.to_ascii_lowercase()
            });
            let value = fit.and_then(|_| HeaderValue::from_str(text).ok());
            value.ok_or_else(|| {
                let problem = format!(
                    "holds {text:?}, which is no origin; each is scheme, host and port as browsers send them: https://app.example.com"
                );
                here.config.wrong("serve.cors_origins", &problem)
            })
        })
        .collect()
}

fn router(name: &str, engines: &Engines, options: &RouterOptions) -> Router {
    let Engines {
        engine,
        by_hand,
        drive,
    } = engines;
    let driven = by_hand.as_ref().filter(|_| *drive == DriveBy::Post);
    match (name, by_hand) {
        (EXECUTOR, _) => http::executor(driven.unwrap_or(engine), options.clone()),
        (TASKS, _) => http::task_executor(engine.clone(), options.clone()),
        (ADMIN, _) => http::admin_debug(engine.clone(), driven.cloned(), options.clone()),
        (PROCESSOR, Some(by_hand)) => http::stack_processor(by_hand.clone(), options.clone()),
        _ => http::service(engine.clone(), name, options.clone()),
    }
}

fn said(entries: &[Entry], problems: &BTreeMap<String, String>) -> String {
    let lines = entries.iter().map(|entry| match problems.get(&entry.name) {
        None => format!("  {:25} → {}", entry.name, entry.url),
        Some(problem) => format!("  {:25} ✗ {problem}", entry.name),
    });
    let end = ["registry: .service-registry.json   stop: Ctrl+C".to_owned()];
    lines.chain(end).collect::<Vec<String>>().join("\n")
}
