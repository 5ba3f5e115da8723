//! Keeps one service of the folder running: starts it, waits until it is healthy, starts it again when it ends, stops it.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Manifest, process};
use crate::http::Metrics;

/// How long it may take to end when asked to.
const STOP: Duration = Duration::from_secs(5);
/// How often it is asked whether it is ready.
const LOOK: Duration = Duration::from_millis(50);
/// The first wait before it is started again, and the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Where a service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its name.
    pub(crate) name: String,
    /// Its port on this machine.
    pub(crate) port: u16,
}

impl Place {
    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// How a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Started, and not yet healthy.
    Starting,
    /// It answers.
    Healthy,
    /// It did not start, or ended; why.
    Down(String),
}

/// A service that is looked after.
#[derive(Debug)]
pub(crate) struct Supervised {
    /// Where it is.
    pub(crate) place: Place,
    condition: watch::Receiver<Condition>,
    keeper: JoinHandle<()>,
}

impl Supervised {
    /// Starts to look after it, until `stop`.
    pub(crate) fn start(
        manifest: Manifest,
        place: Place,
        mut variables: BTreeMap<String, String>,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Self {
        variables.insert("PORT".to_owned(), place.port.to_string());
        variables.insert("HOST".to_owned(), "127.0.0.1".to_owned());
        variables.insert("SERVICE_NAME".to_owned(), place.name.clone());
        let (said, condition) = watch::channel(Condition::Starting);
        let keeper = Keeper {
            manifest,
            place: place.clone(),
            variables,
            said,
            metrics,
            stop,
        };
        Self {
            place,
            condition,
            keeper: tokio::spawn(keeper.keep()),
        }
    }

    /// Waits until it is healthy; why not, when it did not become so.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        let mut condition = self.condition.clone();
        let settled = condition
            .wait_for(|condition| *condition != Condition::Starting)
            .await;
        match settled.as_deref() {
            Ok(Condition::Down(why)) => Err(why.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err("the server is stopping".to_owned()),
        }
    }

    /// Waits until it has ended, after `stop`.
    pub(crate) async fn ended(self) {
        // A keeper does not panic; one that did has dropped its child, which kills it.
        let _ = self.keeper.await;
    }
}

struct Keeper {
    manifest: Manifest,
    place: Place,
    variables: BTreeMap<String, String>,
    said: watch::Sender<Condition>,
    metrics: Metrics,
    stop: CancellationToken,
}

impl Keeper {
    async fn keep(self) {
        let name = self.place.name.as_str();
        let mut pause = PAUSE;
        loop {
            let why = match process::start(&self.manifest, &self.variables) {
                Err(error) => error.to_string(),
                Ok(mut child) => {
                    pass_on(name, child.stdout.take());
                    pass_on(name, child.stderr.take());
                    match self.attend(&mut child).await {
                        Some(why) => {
                            if *self.said.borrow() == Condition::Healthy {
                                pause = PAUSE;
                            }
                            why
                        }
                        None => return process::stop(&mut child, STOP).await,
                    }
                }
            };
            tracing::warn!(service = name, problem = %why, "a service of the folder is down; it is started again in {} s", pause.as_secs());
            self.say(Condition::Down(why));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits for the end of the child: why it is down; `None` when it shall be stopped.
    async fn attend(&self, child: &mut Child) -> Option<String> {
        let patience = Duration::from_secs(self.manifest.said.start_timeout_secs);
        tokio::select! {
            () = self.stop.cancelled() => return None,
            ended = child.wait() => return Some(of_end(ended)),
            healthy = tokio::time::timeout(patience, self.healthy()) => {
                if healthy.is_err() {
                    process::stop(child, STOP).await;
                    return Some(format!(
                        "it did not answer 200 to GET {} on port {} within {} s; it listens on the port in the variable PORT",
                        self.manifest.said.health, self.place.port, patience.as_secs()
                    ));
                }
            }
        }
        self.say(Condition::Healthy);
        tokio::select! {
            () = self.stop.cancelled() => None,
            ended = child.wait() => Some(of_end(ended)),
        }
    }

    fn say(&self, condition: Condition) {
        let up = condition == Condition::Healthy;
        self.metrics.service_is_up(&self.place.name, up);
        self.said.send_replace(condition);
    }

    async fn healthy(&self) {
        let url = format!("{}{}", self.place.url(), self.manifest.said.health);
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(2))
            .no_proxy()
            .build();
        let Ok(client) = client else {
            return std::future::pending().await;
        };
        loop {
            let answer = client.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn of_end(ended: std::io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => format!("it ended by itself ({status}); see its lines above"),
        Err(error) => format!("nobody knows whether it runs: {error}"),
    }
}

/// Its lines become lines of this log.
fn pass_on(service: &str, stream: Option<impl AsyncRead + Unpin + Send + 'static>) {
    let Some(stream) = stream else { return };
    let service = service.to_owned();
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            tracing::info!(service, "{}", String::from_utf8_lossy(&line).trim_end());
        }
    });
}
