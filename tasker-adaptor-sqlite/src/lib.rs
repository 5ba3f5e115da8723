//! Tasker on SQLite: durable runs in one file, without a server.
//!
//! What it is: [`SqliteStorage`], every trait of `tasker-adaptor` on a bundled SQLite. One thread writes and carries everything that
//! waits in one transaction (group commit), a few threads read beside it; write-ahead log, `synchronous = FULL`. Several processes
//! may open one file. What it is not: it runs no JavaScript, reads no clock and needs no async runtime.
//!
//! Invariants: an answer to a write is sent after its COMMIT · a refused turn leaves its batch alone · an error is of one operation,
//! or, when COMMIT itself failed, of all that shared the transaction, and means unknown · no query of the engine grows with
//! the history of ended runs · a row that cannot be read affects its own run only.
//!
//! ```no_run
//! # async fn open() -> Result<(), tasker_adaptor::StorageError> {
//! let storage = tasker_adaptor_sqlite::SqliteStorage::open("tasker.db").await?;
//! # Ok(()) }
//! ```

mod audit;
mod backlog;
mod cached;
mod cancel;
mod claim;
mod columns;
mod commit;
mod connection;
mod fault;
mod fence;
mod finish;
mod gathering;
mod hot;
mod journal;
mod leases;
mod log_file;
mod maintenance;
mod make;
mod mirror;
mod numbers;
mod options;
#[cfg(test)]
mod plans;
mod queue;
mod readers;
mod run_store;
mod schema;
mod small_tables;
mod tree;
mod watching;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use rusqlite::Connection;
use tasker_adaptor::{Hint, NewTaskRun, StorageError, Submitted, Timestamp};
use tokio::sync::broadcast;

pub use self::options::{Options, Synchronous};
/// The SQLite driver, in the version whose [`rusqlite::Transaction`] [`SqliteStorage::submit_in`] takes.
pub use rusqlite;

use self::fault::Outcome;
use self::readers::Readers;
use self::writer::{Tx, Urgency, Writer};

/// A database file with its threads. Cheap to clone; the threads end with the last clone, after everything that waits was written.
#[derive(Clone)]
pub struct SqliteStorage {
    inner: Arc<Inner>,
}

struct Inner {
    options: Arc<Options>,
    hints: broadcast::Sender<Hint>,
    writer: Writer,
    readers: Readers,
    /// The latest time at which a claim looked for due rows.
    seen_due: AtomicI64,
}

impl SqliteStorage {
    /// Opens a file with the default [`Options`], making it and its tables where they are missing.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::options(path).open().await
    }

    /// Options for a file.
    pub fn options(path: impl AsRef<Path>) -> Options {
        Options::new(path.as_ref())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.options.path
    }

    /// Submits a run inside the caller's own transaction on the same file: it exists when, and only when, that transaction commits.
    /// Engines learn of it by the next look for commits of others, a few milliseconds after the commit.
    ///
    /// The connection is the caller's; the file must have been opened by this adaptor before, so that its tables are there.
    ///
    /// ```
    /// # use tasker_adaptor::{Json, NewTaskRun, StackRunId, TaskRunId, Timestamp};
    /// # use tasker_adaptor_sqlite::{SqliteStorage, rusqlite};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?; let path = folder.path().join("app.db");
    /// # let now = Timestamp::from_millis(1);
    /// # let new = NewTaskRun { id: TaskRunId::from_parts(now, 1), root: StackRunId::from_parts(now, 2), task: "hello".into(),
    /// #   version: "v1".into(), input: Json::null(), idempotency_key: None, request_hash: "h".into(), priority: 0, run_at: now,
    /// #   deadline: None, labels: Default::default(), correlation_id: None, traceparent: None };
    /// let storage = SqliteStorage::open(&path).await?;
    /// let mut app = rusqlite::Connection::open(&path)?;
    /// let order = app.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    /// order.execute_batch("CREATE TABLE orders (id INTEGER); INSERT INTO orders VALUES (17)")?;
    /// SqliteStorage::submit_in(&order, new, now)?;
    /// order.commit()?; // the order and its run, or neither
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As `submit`. After one the caller decides about its transaction; nothing was written by this call, unless the error is SQLite's own.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the request is used up, as by `submit`"
    )]
    pub fn submit_in(
        transaction: &rusqlite::Transaction<'_>,
        new: NewTaskRun,
        now: Timestamp,
    ) -> Result<Submitted, StorageError> {
        run_store::submit(transaction, &new, now).map_err(|fault| {
            let path = transaction.path().unwrap_or("the database").to_owned();
            fault.into_storage(Path::new(&path))
        })
    }

    /// Limits the file to so many pages of 4 KiB from now on; a limit below its size lets it keep its size; `None` lifts the limit.
    /// Beyond it writes give [`StorageError::Full`] and nothing is lost.
    ///
    /// # Errors
    /// As any write.
    pub async fn limit_pages(&self, pages: Option<u32>) -> Result<(), StorageError> {
        self.write(1, move |tx| {
            let pages = pages.map_or(i64::from(u32::MAX) - 1, |pages| i64::from(pages.max(1)));
            tx.conn.pragma_update(None, "max_page_count", pages)?;
            Ok(())
        })
        .await
    }

    /// All migrations as one script for the `sqlite3` shell, for an empty file whose host forbids the adaptor to make them
    /// ([`Options::migrate`]).
    pub fn migration_sql() -> String {
        schema::script()
    }

    async fn start(options: Options) -> Result<Self, StorageError> {
        let options = Arc::new(options);
        let (hints, _) = broadcast::channel(watching::INBOX);
        let writer = Writer::start(Arc::clone(&options), hints.clone()).await?;
        let readers = Readers::start(&options)?;
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                hints,
                writer,
                readers,
                seen_due: AtomicI64::new(i64::MIN),
            }),
        })
    }

    /// A write in its turn.
    async fn write<T, F>(&self, weight: usize, work: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Outcome<T> + Send + 'static,
    {
        self.inner.writer.write(Urgency::Normal, weight, work).await
    }

    async fn read<T, F>(&self, work: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    {
        self.inner.readers.read(work).await
    }
}

impl fmt::Debug for SqliteStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStorage")
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}
