//! Hints: to this process at once, to others by `NOTIFY`, from others by `LISTEN` on a connection of its own.
//!
//! Notifications go out after the commit that they are about, many in one statement: a `NOTIFY` inside a transaction makes
//! all commits of a database wait for each other. One that is lost with its process costs a poll interval, nothing more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use futures::future::{self, Either};
use futures::stream;
use futures::{FutureExt as _, StreamExt as _};
use tasker_adaptor::{Hint, Hints, StorageError, TaskRunId};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Config};
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use crate::error::from_driver;
use crate::options::connect_listener;
use crate::schema::Schema;
use crate::session::{Keeps, Patience, Session};

/// Hints that a slow reader may leave unread before it gets `Any` for all of them.
const INBOX: usize = 1_024;

/// Notifications that may wait to be sent; more than that are one `Any`.
const OUTBOX: usize = 1_024;

/// How long hints are gathered after some were sent.
const GATHER: Duration = Duration::from_millis(2);

/// How long an own notification may take before there must be a transaction pooler in between.
const PROBE: Duration = Duration::from_secs(1);

/// How often a silent listener is asked whether it still lives.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Waits between attempts to connect the listener again.
const RECONNECT: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// Everybody in this process who watches, and the way to the other processes.
pub(crate) struct Hub {
    watchers: broadcast::Sender<Hint>,
    outbox: mpsc::Sender<Hint>,
    tasks: Vec<JoinHandle<()>>,
}

/// What a hub is built with.
pub(crate) struct HubParts {
    pub(crate) pool: Pool,
    pub(crate) schema: Arc<Schema>,
    pub(crate) patience: Arc<Patience>,
    pub(crate) listener: Option<(Config, MakeRustlsConnect)>,
    pub(crate) poll_interval: Duration,
    /// Names this process in its own notifications, which it need not hear.
    pub(crate) token: Uuid,
}

impl Hub {
    pub(crate) fn start(parts: HubParts) -> Self {
        let (watchers, _) = broadcast::channel(INBOX);
        let (outbox, inbox) = mpsc::channel(OUTBOX);
        let mut tasks = vec![tokio::spawn(send_all(
            inbox,
            parts.pool,
            (Arc::clone(&parts.schema), parts.patience),
            parts.token,
        ))];
        let sender = watchers.clone();
        tasks.push(match parts.listener {
            Some((config, tls)) => {
                let listener = Listener {
                    config,
                    tls,
                    channel: parts.schema.channel(),
                    own: parts.token.simple().to_string(),
                    watchers: sender,
                    poll_interval: parts.poll_interval,
                };
                tokio::spawn(listener.run())
            }
            None => tokio::spawn(async move {
                loop {
                    tokio::time::sleep(parts.poll_interval).await;
                    // An error says that nobody watches at this moment.
                    let _ = sender.send(Hint::Any);
                }
            }),
        });
        Self {
            watchers,
            outbox,
            tasks,
        }
    }

    pub(crate) fn send(&self, hints: impl IntoIterator<Item = Hint>) {
        for hint in hints {
            let _ = self.watchers.send(hint);
            let _ = self.outbox.try_send(hint);
        }
    }

    pub(crate) fn watch(&self) -> Hints {
        stream::unfold(self.watchers.subscribe(), async |mut inbox| {
            match inbox.recv().await {
                Ok(hint) => Some((hint, inbox)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((Hint::Any, inbox)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
        .boxed()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The payload of a notification.
fn encode(own: &str, hint: Hint) -> String {
    match hint {
        Hint::Work => format!("{own} work"),
        Hint::Ended(run) => format!("{own} ended {run}"),
        Hint::Cancel(run) => format!("{own} cancel {run}"),
        Hint::Any => format!("{own} any"),
    }
}

/// Reads [`encode`] back; `None` for what this process sent.
fn decode(own: &str, payload: &str) -> Option<Hint> {
    let mut words = payload.split(' ');
    if words.next() == Some(own) {
        return None;
    }
    let kind = words.next();
    let run = words.next().and_then(|id| id.parse::<TaskRunId>().ok());
    Some(match (kind, run) {
        (Some("work"), _) => Hint::Work,
        (Some("ended"), Some(run)) => Hint::Ended(run),
        (Some("cancel"), Some(run)) => Hint::Cancel(run),
        _ => Hint::Any,
    })
}

/// Notifications that a caller's own transaction sends at its commit: every process hears them, this one too.
pub(crate) fn foreign_payload(hint: Hint) -> String {
    encode("-", hint)
}

pub(crate) const NOTIFY: &str = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload";

/// The same in a transaction of its own, which need not wait for the disk: a hint is about what is durable already.
const NOTIFY_ONLY: &str = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, payload) FROM unnest($2::text[]) AS payload";

async fn send_all(
    mut inbox: mpsc::Receiver<Hint>,
    pool: Pool,
    (schema, patience): (Arc<Schema>, Arc<Patience>),
    token: Uuid,
) {
    let own = token.simple().to_string();
    let channel = schema.channel();
    let mut hints = Vec::new();
    while inbox.recv_many(&mut hints, OUTBOX).await > 0 {
        let mut seen = HashSet::new();
        let mut payloads: Vec<String> = hints.drain(..).map(|hint| encode(&own, hint)).collect();
        payloads.retain(|payload| seen.insert(payload.clone()));
        if payloads.len() >= OUTBOX {
            payloads = vec![encode(&own, Hint::Any)];
        }
        let sent = async {
            let mut session = Session::open(&pool, &schema, &patience, Keeps::Nothing).await?;
            session
                .query(
                    NOTIFY_ONLY,
                    &[(&channel, Type::TEXT), (&payloads, Type::TEXT_ARRAY)],
                )
                .await
        };
        if let Err(error) = sent.await {
            tracing::debug!(%error, "hints for other processes were not sent; they poll");
        }
        // The first hint after a silence goes out at once; under load those of a moment go together.
        tokio::time::sleep(GATHER).await;
    }
}

struct Listener {
    config: Config,
    tls: MakeRustlsConnect,
    channel: String,
    own: String,
    watchers: broadcast::Sender<Hint>,
    poll_interval: Duration,
}

impl Listener {
    async fn run(self) {
        let mut failures = 0;
        loop {
            let heard = self.listen(&mut failures).await;
            if let Err(error) = heard {
                tracing::warn!(%error, "the listener lost its connection; it connects again, and watchers poll meanwhile");
            }
            let wait = RECONNECT[failures.min(RECONNECT.len() - 1)].min(self.poll_interval);
            failures += 1;
            tokio::time::sleep(wait).await;
            let _ = self.watchers.send(Hint::Any);
        }
    }

    /// Hears until the connection ends.
    async fn listen(&self, failures: &mut usize) -> Result<(), StorageError> {
        let (client, mut connection) = connect_listener(&self.config, &self.tls).await?;
        let statement = listen_statement(&self.channel);
        let mut begun = Some(Box::pin(async {
            client.batch_execute(&statement).await.map_err(from_driver)
        }));
        let mut check: Option<future::BoxFuture<'_, Result<(), StorageError>>> = None;
        loop {
            let question = if let Some(begun) = &mut begun {
                Either::Left(Either::Left(begun))
            } else if let Some(check) = &mut check {
                Either::Left(Either::Right(check))
            } else {
                Either::Right(future::pending())
            };
            let message = future::poll_fn(|context| connection.poll_message(context));
            tokio::select! {
                message = message => match message {
                    Some(Ok(AsyncMessage::Notification(note))) => {
                        if let Some(hint) = decode(&self.own, note.payload()) {
                            let _ = self.watchers.send(hint);
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(from_driver(error)),
                    None => return Err(crate::error::unavailable("the server closed the listener's connection")),
                },
                answer = question => {
                    answer?;
                    if begun.take().is_some() {
                        // What was said before this moment was not heard.
                        *failures = 0;
                        let _ = self.watchers.send(Hint::Any);
                    }
                    check = None;
                }
                () = tokio::time::sleep(KEEPALIVE) => {
                    if check.is_some() || begun.is_some() {
                        return Err(crate::error::unavailable("the listener's connection is silent"));
                    }
                    check = Some(async {
                        client.batch_execute("SELECT 1").await.map_err(from_driver)
                    }.boxed());
                }
            }
        }
    }
}

fn listen_statement(channel: &str) -> String {
    format!("LISTEN \"{}\"", channel.replace('"', "\"\""))
}

/// Whether a notification reaches a connection that listens: not so behind a transaction pooler.
pub(crate) async fn hears(
    pool: &Pool,
    (schema, patience): (&Arc<Schema>, &Arc<Patience>),
    listener: &(Config, MakeRustlsConnect),
    token: Uuid,
) -> Result<bool, StorageError> {
    let (client, mut connection) = connect_listener(&listener.0, &listener.1).await?;
    // A channel of its own: a probe is nobody's hint.
    let channel = format!("tasker-probe:{}", token.simple());
    let (heard, mut hearing) = mpsc::channel(1);
    let wanted = channel.clone();
    let listening = tokio::spawn(async move {
        while let Some(Ok(message)) =
            future::poll_fn(|context| connection.poll_message(context)).await
        {
            if matches!(&message, AsyncMessage::Notification(note) if note.channel() == wanted) {
                let _ = heard.try_send(());
            }
        }
    });
    let outcome = async {
        client
            .batch_execute(&listen_statement(&channel))
            .await
            .map_err(from_driver)?;
        let mut session = Session::open(pool, schema, patience, Keeps::Nothing).await?;
        let payloads = vec![String::from("probe")];
        session
            .query(
                NOTIFY_ONLY,
                &[(&channel, Type::TEXT), (&payloads, Type::TEXT_ARRAY)],
            )
            .await?;
        Ok(matches!(
            tokio::time::timeout(PROBE, hearing.recv()).await,
            Ok(Some(()))
        ))
    }
    .await;
    // Behind a pooler the channel would stay with a server connection that others use.
    let _ = client.batch_execute("UNLISTEN *").await;
    drop(client);
    listening.abort();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_survives_its_payload_and_own_ones_are_not_heard() {
        let run = TaskRunId::from_uuid(Uuid::from_u128(7));
        for hint in [Hint::Work, Hint::Ended(run), Hint::Cancel(run), Hint::Any] {
            assert_eq!(decode("me", &encode("you", hint)), Some(hint));
            assert_eq!(decode("me", &encode("me", hint)), None);
        }
        assert_eq!(decode("me", "what is this"), Some(Hint::Any));
    }
}
