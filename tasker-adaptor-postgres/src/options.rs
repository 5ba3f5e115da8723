//! How to connect.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use rustls::ClientConfig;
use tasker_adaptor::StorageError;
use tokio_postgres::Config;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::PostgresStorage;
use crate::error::{BACKEND, from_driver};
use crate::tls;

/// Connections of a pool when the caller names no number.
const POOL_SIZE: usize = 8;

/// Connections for leases, made when the first worker registers.
const LEASE_CONNECTIONS: usize = 1;

/// How long a connection may take to be made, or to come out of the pool, before the call is `Unavailable`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the answer to one trip may take when the caller names no time.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// Idle connections are asked after this long, [`KEEPALIVE_RETRIES`] times, whether there is still anybody; sent data must be
/// received in [`UNRECEIVED`]. The defaults of most systems are hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
const UNRECEIVED: Duration = Duration::from_secs(30);

/// What the driver has when a URL does not say `keepalives_idle`.
const DRIVERS_KEEPALIVE_IDLE: Duration = Duration::from_hours(2);

/// Whether a transaction pooler (PgBouncer in transaction mode, Supabase's port 6543) stands before the server.
///
/// Behind one, two transactions of a connection may reach two server processes: statements have no names there and
/// `LISTEN` hears nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooler {
    /// Find out: a notification sent to the listener's own connection must arrive within a second.
    #[default]
    Auto,
    /// There is one: unnamed statements, polling.
    On,
    /// There is none.
    Off,
}

/// How to connect. Made by [`PostgresStorage::options`] or [`PostgresStorage::with_pool`], used by [`PostgresOptions::connect`].
#[derive(Clone)]
pub struct PostgresOptions {
    source: Source,
    pub(crate) schema: String,
    pool_size: usize,
    pub(crate) migrate: bool,
    pub(crate) pooler: Pooler,
    pub(crate) listen: bool,
    pub(crate) poll_interval: Duration,
    pub(crate) reply_timeout: Duration,
    tls: Option<ClientConfig>,
}

#[derive(Clone)]
enum Source {
    Url(String),
    Pool(Pool, Option<Box<Config>>),
}

/// The pool, and what the listener connects with.
pub(crate) struct Connections {
    pub(crate) pool: Pool,
    /// For leases alone: a heartbeat must not wait for a connection that commits hold.
    pub(crate) leases: Pool,
    pub(crate) listener: Option<(Config, MakeRustlsConnect)>,
}

impl std::fmt::Debug for PostgresOptions {
    /// Without the URL: it may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("schema", &self.schema)
            .field("pool_size", &self.pool_size)
            .field("migrate", &self.migrate)
            .field("pooler", &self.pooler)
            .field("listen", &self.listen)
            .field("poll_interval", &self.poll_interval)
            .field("reply_timeout", &self.reply_timeout)
            .finish_non_exhaustive()
    }
}

impl PostgresOptions {
    pub(crate) fn from_url(url: &str) -> Self {
        Self::new(Source::Url(url.to_owned()))
    }

    pub(crate) fn from_pool(pool: Pool, listener: Option<Config>) -> Self {
        Self::new(Source::Pool(pool, listener.map(Box::new)))
    }

    fn new(source: Source) -> Self {
        Self {
            source,
            schema: "tasker".to_owned(),
            pool_size: POOL_SIZE,
            migrate: true,
            pooler: Pooler::Auto,
            listen: true,
            poll_interval: Duration::from_secs(1),
            reply_timeout: REPLY_TIMEOUT,
            tls: None,
        }
    }

    /// The schema that holds the tables. Default `tasker`.
    #[must_use]
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = name.into();
        self
    }

    /// Connections at most, beside one that listens and one for leases. Default 8. A pool that the caller brings keeps its own size.
    #[must_use]
    pub fn pool_size(mut self, connections: usize) -> Self {
        self.pool_size = connections.max(2);
        self
    }

    /// Whether missing migrations are applied. Default `true`. With `false` nothing is created or altered, and connecting
    /// answers `MigrationNeeded` when something is missing; [`PostgresStorage::migration_sql`] prints what to apply.
    #[must_use]
    pub fn migrate(mut self, may: bool) -> Self {
        self.migrate = may;
        self
    }

    /// Whether a transaction pooler stands before the server. Default [`Pooler::Auto`].
    #[must_use]
    pub fn pooler(mut self, pooler: Pooler) -> Self {
        self.pooler = pooler;
        self
    }

    /// Whether to hear the hints of other processes by `LISTEN`. Default `true`; with `false`, and behind a transaction
    /// pooler, watchers are told to look at the poll interval.
    #[must_use]
    pub fn listen(mut self, listen: bool) -> Self {
        self.listen = listen;
        self
    }

    /// How often watchers are told to look while nothing can be heard. Default one second.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.max(Duration::from_millis(10));
        self
    }

    /// How long a trip to the server may take before its connection is given up and the call is `Unavailable`, which an engine
    /// sends again. Default 30 seconds, at least one. What a silent network needs; `statement_timeout` is for slow statements.
    #[must_use]
    pub fn reply_timeout(mut self, timeout: Duration) -> Self {
        self.reply_timeout = timeout.max(Duration::from_secs(1));
        self
    }

    /// TLS of the caller's own: roots, client certificates. Default: what `sslmode` and `sslrootcert` of the URL say.
    #[must_use]
    pub fn tls(mut self, config: ClientConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// Connects, looks at the schema, migrates if it may.
    ///
    /// # Errors
    /// `Misuse` for a URL or schema name that cannot be one, `Unavailable`, `MigrationNeeded`, `NewerSchema`.
    pub async fn connect(self) -> Result<PostgresStorage, StorageError> {
        PostgresStorage::start(self).await
    }

    /// Nobody else uses the connections.
    pub(crate) fn owns_pool(&self) -> bool {
        matches!(self.source, Source::Url(_))
    }

    pub(crate) fn connections(&self) -> Result<Connections, StorageError> {
        match &self.source {
            Source::Url(url) => self.connections_to(url),
            Source::Pool(pool, listener) => {
                let pool = pool.clone();
                let Some(config) = listener else {
                    let leases = pool.clone();
                    return Ok(Connections {
                        pool,
                        leases,
                        listener: None,
                    });
                };
                let connector = self.connector(config, &tls::Verify::default())?;
                let leases = build_pool(config, &connector, LEASE_CONNECTIONS)?;
                let listener = Some(((**config).clone(), connector));
                Ok(Connections {
                    pool,
                    leases,
                    listener,
                })
            }
        }
    }

    fn connections_to(&self, url: &str) -> Result<Connections, StorageError> {
        let (known, verify) = tls::split_url(url);
        // The text of the error may quote the URL, and with it the password.
        let mut config: Config = known.parse().map_err(|_: tokio_postgres::Error| StorageError::Misuse {
            what: "the database URL cannot be read: give postgres://user:password@host:port/database?sslmode=…".to_owned(),
        })?;
        if config.get_application_name().is_none() {
            config.application_name("tasker");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        notice_silence(&mut config);
        let connector = self.connector(&config, &verify)?;
        Ok(Connections {
            pool: build_pool(&config, &connector, self.pool_size)?,
            leases: build_pool(&config, &connector, LEASE_CONNECTIONS)?,
            listener: Some((config, connector)),
        })
    }

    fn connector(
        &self,
        config: &Config,
        verify: &tls::Verify,
    ) -> Result<MakeRustlsConnect, StorageError> {
        let tls = match &self.tls {
            Some(own) => own.clone(),
            None => tls::client_config(config.get_ssl_mode(), verify)?,
        };
        Ok(MakeRustlsConnect::new(tls))
    }
}

/// A connection whose other end is gone without a word is found out; what the URL says goes before.
fn notice_silence(config: &mut Config) {
    if config.get_keepalives_idle() == DRIVERS_KEEPALIVE_IDLE {
        config.keepalives_idle(KEEPALIVE_IDLE);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(KEEPALIVE_INTERVAL);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(KEEPALIVE_RETRIES);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(UNRECEIVED);
    }
}

fn build_pool(
    config: &Config,
    connector: &MakeRustlsConnect,
    size: usize,
) -> Result<Pool, StorageError> {
    let manager = Manager::from_config(
        config.clone(),
        connector.clone(),
        ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        },
    );
    Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(CONNECT_TIMEOUT * 3))
        .create_timeout(Some(CONNECT_TIMEOUT * 2))
        .build()
        .map_err(|error| StorageError::Backend {
            backend: BACKEND,
            message: format!("the pool cannot be built: {error}"),
            retryable: false,
            source: None,
        })
}

/// Makes the connection of the listener; the second part must be polled for the first to work.
pub(crate) async fn connect_listener(
    config: &Config,
    tls: &MakeRustlsConnect,
) -> Result<
    (
        tokio_postgres::Client,
        tokio_postgres::Connection<
            tokio_postgres::Socket,
            <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<tokio_postgres::Socket>>::Stream,
        >,
    ),
    StorageError,
>{
    config.connect(tls.clone()).await.map_err(from_driver)
}
