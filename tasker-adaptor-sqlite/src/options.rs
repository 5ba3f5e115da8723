//! How a database file is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tasker_adaptor::StorageError;

use crate::SqliteStorage;

/// When a commit is called done. See <https://www.sqlite.org/pragma.html#pragma_synchronous>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// After the write-ahead log reached the disk. Nothing that was answered is ever lost. With many runs the cost is shared:
    /// one sync carries all turns that came while the sync before it ran.
    #[default]
    Full,
    /// After the write-ahead log was handed to the operating system. A crash of the process loses nothing; a power failure or a crash
    /// of the system can lose the commits of the last moments, so that calls which were made and recorded are made again
    /// and a `Block` method may be asked twice. The file stays consistent.
    Normal,
    /// Never waited for. A crash of the process loses nothing; a power failure can damage the file. For tests.
    Off,
}

impl Synchronous {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
            Self::Off => "OFF",
        }
    }
}

/// Options of a [`SqliteStorage`]. Each has a default that is right for an engine on a local disk.
///
/// ```no_run
/// # async fn open() -> Result<(), tasker_adaptor::StorageError> {
/// use tasker_adaptor_sqlite::{SqliteStorage, Synchronous};
/// let storage = SqliteStorage::options("tasker.db")
///     .synchronous(Synchronous::Normal)
///     .readers(4)
///     .open()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until they are opened"]
pub struct Options {
    pub(crate) path: PathBuf,
    pub(crate) synchronous: Synchronous,
    pub(crate) busy_timeout: Duration,
    pub(crate) readers: usize,
    pub(crate) cache_kib: u32,
    pub(crate) migrate: bool,
    pub(crate) read_only: bool,
    pub(crate) watch_interval: Duration,
    pub(crate) max_pages: Option<u32>,
}

impl Options {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            synchronous: Synchronous::Full,
            busy_timeout: Duration::from_secs(5),
            readers: 2,
            cache_kib: 8_192,
            migrate: true,
            read_only: false,
            watch_interval: Duration::from_millis(25),
            max_pages: None,
        }
    }

    /// When a commit is called done. Default [`Synchronous::Full`].
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// How long to wait while another process writes, before [`StorageError::Busy`]. Default 5 s.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Threads with a connection each that answer reads. Default 2, at least 1.
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers.max(1);
        self
    }

    /// Page cache of each connection in KiB, the writer's and each reader's. Default 8 MiB: after most commits SQLite walks the writer's
    /// whole cache, so that a larger one costs more processor time than the reads from the system's cache that it saves.
    pub fn cache_kib(mut self, kib: u32) -> Self {
        self.cache_kib = kib;
        self
    }

    /// Whether missing migrations are made. Default yes; with `false` a file that needs some gives [`StorageError::MigrationNeeded`],
    /// and [`SqliteStorage::migration_sql`] is what to apply.
    pub fn migrate(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// Opens the file for reading only: every write gives [`StorageError::ReadOnly`], nothing is migrated. Default no.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// How often to look for commits of other processes while somebody watches. Default 25 ms, and eight times as
    /// long once nobody has written for a second; nobody watching costs nothing. At rest a commit whose sync takes over a second may
    /// be seen up to a second later.
    pub fn watch_interval(mut self, interval: Duration) -> Self {
        self.watch_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Largest size of the file in pages of 4 KiB; beyond it writes give [`StorageError::Full`]. Default: the disk.
    pub fn max_pages(mut self, pages: u32) -> Self {
        self.max_pages = Some(pages);
        self
    }

    /// Opens the file, making it and its tables where they are missing.
    ///
    /// # Errors
    /// `Misuse` for a path that names no file (`:memory:`, the empty path) · `NewerSchema`, `MigrationNeeded` ·
    /// `ReadOnly`, `Busy`, `Full`, `Corrupt` (no database), `Unavailable` (it cannot be opened, or is damaged).
    pub async fn open(self) -> Result<SqliteStorage, StorageError> {
        let text = self.path.to_string_lossy();
        if text.is_empty() || text == ":memory:" || text.starts_with("file:") {
            return Err(StorageError::Misuse {
                what: format!(
                    "{text:?} names no database file: give the path of a file, or use MemoryStorage for a store that is not kept"
                ),
            });
        }
        SqliteStorage::start(self).await
    }
}
