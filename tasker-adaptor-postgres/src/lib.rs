//! Tasker on PostgreSQL 13 and later: the same runs on many machines.
//!
//! ```no_run
//! # async fn example() -> Result<(), tasker_adaptor::StorageError> {
//! use tasker_adaptor_postgres::PostgresStorage;
//!
//! let storage = PostgresStorage::connect("postgres://me@localhost/app").await?;
//! # Ok(()) }
//! ```
//!
//! What it is: the [`Storage`](tasker_adaptor::Storage) contract as set-based statements over a pool of connections,
//! hints by `LISTEN/NOTIFY`, migrations. What it is not: it runs no JavaScript, reads no clock and keeps no state that
//! another process would miss.
//!
//! Invariants: every operation locks task runs, then workers, then stack runs by ascending id, all in its first statements,
//! and decides in later ones under the locks · a batch of turns is a fixed number of statements · ids, times and
//! decisions come from the caller · a write whose reply is lost is `Unavailable` and may be sent again as it is ·
//! every statement names its schema, so it means the same behind a pooler.

mod conflicts;
mod error;
mod hints;
mod migrate;
mod options;
#[cfg(test)]
mod plans;
mod row;
mod schema;
mod session;
mod store;
mod text;
mod tls;

use std::future::Future;
use std::sync::Arc;

use deadpool_postgres::Pool;
use tasker_adaptor::{Hint, NewTaskRun, StorageError, Submitted, Timestamp};
use tokio_postgres::types::Type;
use tokio_postgres::{Config, Row};
use uuid::Uuid;

pub use options::{Pooler, PostgresOptions};

use crate::conflicts::Conflicts;
use crate::hints::{Hub, HubParts};
use crate::schema::Schema;
use crate::session::{Keeps, Param, Patience, Session};
use crate::store::gather::Gathering;

/// Durable runs in a PostgreSQL database. Cheap to clone; all clones share one pool.
#[derive(Clone)]
pub struct PostgresStorage {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    leases: Pool,
    schema: Arc<Schema>,
    patience: Arc<Patience>,
    /// What the connections of the pool keep.
    keeps: Keeps,
    /// Submits on their way together.
    gathering: Arc<Gathering>,
    hub: Hub,
}

impl std::fmt::Debug for PostgresStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStorage")
            .field("schema", &self.inner.schema.name())
            .field("behind_pooler", &self.is_behind_pooler())
            .field("pool", &self.inner.pool.status())
            .finish()
    }
}

impl PostgresStorage {
    /// Connects with the defaults: schema `tasker`, migrated if needed, 8 connections and one that listens.
    ///
    /// # Errors
    /// As [`PostgresOptions::connect`].
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        Self::options(url).connect().await
    }

    /// How to connect to this URL: `postgres://user:password@host:port/database?sslmode=…`.
    pub fn options(url: &str) -> PostgresOptions {
        PostgresOptions::from_url(url)
    }

    /// Over a pool of the caller's. `listener` is what the connection that listens is made with, for a pool discards
    /// notifications; without it watchers poll. Behind a transaction pooler say so with [`PostgresOptions::pooler`].
    pub fn with_pool(pool: Pool, listener: Option<Config>) -> PostgresOptions {
        PostgresOptions::from_pool(pool, listener)
    }

    /// All migrations as one script for this schema, for those who apply it by hand. Apply it in one transaction.
    ///
    /// # Errors
    /// `Misuse` when the text can be no schema name.
    pub fn migration_sql(schema: &str) -> Result<String, StorageError> {
        Ok(migrate::script(&Schema::new(schema)?))
    }

    /// The schema that holds the tables.
    pub fn schema(&self) -> &str {
        self.inner.schema.name()
    }

    /// Whether the adaptor found, or was told of, a transaction pooler before the server.
    pub fn is_behind_pooler(&self) -> bool {
        self.inner.keeps == Keeps::Nothing
    }

    /// Submits runs inside the caller's own transaction: they exist when it commits, and never if it does not.
    ///
    /// The transaction may have any isolation level. At `READ COMMITTED`, the default, an id or key that another transaction
    /// has committed meanwhile is found. Above it the caller's own snapshot does not show it, and the answer is a retryable error
    /// (SQLSTATE 40001): the whole transaction must be tried again, as such levels ask for anyway. Workers are told at the commit.
    ///
    /// # Errors
    /// As [`submit`](tasker_adaptor::RunStore::submit). After an error the transaction can only be rolled back.
    pub async fn submit_in(
        &self,
        transaction: &tokio_postgres::Transaction<'_>,
        runs: Vec<NewTaskRun>,
        now: Timestamp,
    ) -> Result<Vec<Result<Submitted, StorageError>>, StorageError> {
        let answers = store::submit::submit_in(transaction, &self.inner.schema, &runs, now).await?;
        if answers.iter().flatten().any(|submitted| submitted.created) {
            let payloads = vec![hints::foreign_payload(Hint::Work)];
            let channel = self.inner.schema.channel();
            transaction
                .query_typed(
                    hints::NOTIFY,
                    &[(&channel, Type::TEXT), (&payloads, Type::TEXT_ARRAY)],
                )
                .await
                .map_err(error::from_driver)?;
        }
        Ok(answers)
    }

    /// Closes the pool: later calls are `Unavailable`. Dropping the last clone closes it too, and ends all watches.
    pub fn close(&self) {
        self.inner.pool.close();
        self.inner.leases.close();
    }

    pub(crate) async fn start(options: PostgresOptions) -> Result<Self, StorageError> {
        let schema = Arc::new(Schema::new(&options.schema)?);
        let patience = Arc::new(Patience::new(options.reply_timeout));
        let connections = options.connections()?;
        let (pool, leases) = (connections.pool, connections.leases);
        let token: Uuid = {
            let object = pool.get().await.map_err(error::from_pool)?;
            migrate::run(&object, &schema, options.migrate).await?;
            let rows = object
                .query_typed("SELECT gen_random_uuid()", &[])
                .await
                .map_err(error::from_driver)?;
            rows.first().map(|row| row.get(0)).unwrap_or_default()
        };
        let listener = connections.listener.filter(|_| options.listen);
        let is_direct = match (options.pooler, &listener) {
            (Pooler::Off, _) => true,
            (Pooler::Auto, Some(listener)) => {
                hints::hears(&pool, (&schema, &patience), listener, token).await?
            }
            // Without a listener there is nothing to find out with: unnamed statements work everywhere.
            (Pooler::On, _) | (Pooler::Auto, None) => false,
        };
        let keeps = match (is_direct, options.owns_pool()) {
            (false, _) => Keeps::Nothing,
            (true, false) => Keeps::Statements,
            (true, true) => Keeps::Settings,
        };
        let hub = Hub::start(HubParts {
            pool: pool.clone(),
            schema: Arc::clone(&schema),
            patience: Arc::clone(&patience),
            listener: listener.filter(|_| is_direct),
            poll_interval: options.poll_interval,
            token,
        });
        Ok(Self {
            inner: Arc::new(Inner {
                pool,
                leases,
                schema,
                patience,
                keeps,
                gathering: Arc::default(),
                hub,
            }),
        })
    }

    pub(crate) async fn session(&self) -> Result<Session, StorageError> {
        let inner = &self.inner;
        Session::open(&inner.pool, &inner.schema, &inner.patience, inner.keeps).await
    }

    /// A statement about a lease, on a connection that no commit holds. It does not wait long: a heartbeat that is stuck on a
    /// dead connection would keep all later ones from finding a way that works.
    pub(crate) async fn lease_query(
        &self,
        sql: &'static str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StorageError> {
        let patience = self.inner.patience.heartbeat();
        let asked = async {
            let inner = &self.inner;
            let mut session = Session::open(
                &inner.leases,
                &inner.schema,
                &inner.patience,
                Keeps::Nothing,
            )
            .await?;
            session.query(sql, params).await
        };
        tokio::time::timeout(patience, asked)
            .await
            .unwrap_or_else(|_| {
                Err(error::unavailable(
                    "the server did not answer a heartbeat in time",
                ))
            })
    }

    pub(crate) fn patience(&self) -> &Patience {
        &self.inner.patience
    }

    pub(crate) fn hint(&self, hints: impl IntoIterator<Item = Hint>) {
        self.inner.hub.send(hints);
    }

    /// Tries a whole transaction again that the server rolled back for the sake of another.
    pub(crate) async fn retrying<T, F>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, StorageError>>,
    {
        let mut conflicts = Conflicts::default();
        loop {
            match attempt().await {
                Err(error) if conflicts.allow_another_try(&error).await => {}
                outcome => return outcome,
            }
        }
    }
}
