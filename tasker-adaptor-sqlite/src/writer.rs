//! The one thread that writes.
//!
//! It owns the write connection and takes everything that waits into one `BEGIN IMMEDIATE` transaction: batches form by themselves
//! while the last sync runs, and no operation is delayed to wait for company. An answer is sent after COMMIT, never before.
//!
//! Invariants: an operation that is *refused* wrote nothing and leaves its company alone · when one *fails*, the transaction is rolled back
//! and each operation is tried again in a transaction of its own, so that only the guilty one answers with the error ·
//! an operation may therefore run more than once and must do all its work inside the transaction.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tasker_adaptor::{Hint, StorageError};
use tokio::sync::{broadcast, oneshot};

use crate::cached::Cached as _;
use crate::connection::open_writer;
use crate::fault::{BACKEND, Fault, Outcome, closed};
use crate::gathering::gather;
use crate::log_file::{LogFile, Touched};
use crate::mirror::{Mirror, data_version};
use crate::numbers::Numbers;
use crate::options::{Options, Synchronous};

/// Rows that one transaction takes at most, by the weights that operations give themselves.
const BATCH_WEIGHT: usize = 4_096;

/// A write transaction as operations see it.
pub(crate) struct Tx<'c> {
    /// The connection, inside the transaction.
    pub(crate) conn: &'c Connection,
    /// Of rows, for who looks one up.
    pub(crate) numbers: &'c mut Numbers,
    /// Rows as they are, as far as they are known.
    pub(crate) mirror: &'c mut Mirror,
    hints: &'c mut Hints,
    keeps_mirror: bool,
}

/// Hints that leave after COMMIT.
#[derive(Default)]
struct Hints {
    work: bool,
    others: Vec<Hint>,
}

impl Tx<'_> {
    /// The operation sees to it that [`Tx::mirror`] is true when it ends. That of any other is emptied.
    pub(crate) fn keeps_mirror(&mut self) {
        self.keeps_mirror = true;
    }

    /// Tells watchers, after COMMIT, that something became claimable or was woken.
    pub(crate) fn hint_work(&mut self) {
        self.hints.work = true;
    }

    /// Tells watchers of a run, after COMMIT.
    pub(crate) fn hint(&mut self, hint: Hint) {
        self.hints.others.push(hint);
    }
}

/// An operation that waits, with the one who waits for it.
trait Job: Send {
    /// Runs inside the transaction and keeps what came out. `false`: it failed and the transaction must be rolled back.
    fn run(&mut self, tx: &mut Tx<'_>) -> Ran;
    /// Answers: what `run` kept when `error` is `None`.
    fn answer(self: Box<Self>, options: &Options, error: Option<Fault>);
}

enum Ran {
    Done,
    Failed { spoils_connection: bool },
}

struct Operation<F, T> {
    work: F,
    kept: Option<Outcome<T>>,
    reply: oneshot::Sender<Result<T, StorageError>>,
}

impl<F, T> Job for Operation<F, T>
where
    F: FnMut(&mut Tx<'_>) -> Outcome<T> + Send,
    T: Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Ran {
        let result = catch_unwind(AssertUnwindSafe(|| (self.work)(tx))).unwrap_or_else(|_| {
            Err(Fault::Storage(StorageError::Backend {
                backend: BACKEND,
                message: "an operation panicked; it was rolled back".to_owned(),
                retryable: false,
                source: None,
            }))
        });
        let ran = match &result {
            Err(fault) if !fault.is_refusal() => Ran::Failed {
                spoils_connection: fault.spoils_connection(),
            },
            _ => Ran::Done,
        };
        self.kept = Some(result);
        ran
    }

    fn answer(self: Box<Self>, options: &Options, error: Option<Fault>) {
        let Self { work, kept, reply } = *self;
        // What it holds is the caller's alone again when the caller hears of it.
        drop(work);
        let result = match (error, kept) {
            (Some(error), _) => Err(error),
            (None, Some(kept)) => kept,
            (None, None) => Err(Fault::Storage(closed())),
        };
        // The caller may have stopped waiting; what was written stays written.
        let _ = reply.send(result.map_err(|fault| fault.into_storage(&options.path)));
    }
}

struct Waiting {
    weight: usize,
    job: Box<dyn Job>,
}

#[derive(Default)]
struct Queues {
    urgent: VecDeque<Waiting>,
    normal: VecDeque<Waiting>,
    closed: bool,
}

struct Shared {
    queues: Mutex<Queues>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How soon an operation is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// In its turn.
    Normal,
    /// Before everything that waits: heartbeats.
    First,
}

/// The handle on the writer thread.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread; answers when the file is open and its schema is right.
    pub(crate) async fn start(
        options: Arc<Options>,
        hints: broadcast::Sender<Hint>,
    ) -> Result<Self, StorageError> {
        let shared = Arc::new(Shared {
            queues: Mutex::default(),
            wake: Condvar::new(),
        });
        let (opened, wait) = oneshot::channel();
        let worker = Worker {
            log: LogFile::of(&options.path),
            options,
            shared: Arc::clone(&shared),
            hints,
            connection: None,
            numbers: Numbers::default(),
            mirror: Mirror::default(),
            seen_version: None,
            seen_log: None,
            looks_to_do: 0,
            looks_saved: 0,
            looked_at: None,
            in_log: 0,
        };
        let thread = std::thread::Builder::new()
            .name("tasker-sqlite-writer".to_owned())
            .spawn(move || worker.run(opened))
            .map_err(|error| StorageError::Unavailable {
                backend: BACKEND,
                message: format!("the writer thread cannot be started: {error}"),
            })?;
        let writer = Self {
            shared,
            thread: Some(thread),
        };
        match wait.await {
            Ok(Ok(())) => Ok(writer),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(closed()),
        }
    }

    /// Runs `work` in a transaction and answers after COMMIT. `weight` is about the number of rows it writes.
    pub(crate) async fn write<T, F>(
        &self,
        urgency: Urgency,
        weight: usize,
        work: F,
    ) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Outcome<T> + Send + 'static,
    {
        let (reply, wait) = oneshot::channel();
        let waiting = Waiting {
            weight,
            job: Box::new(Operation {
                work,
                kept: None,
                reply,
            }),
        };
        {
            let mut queues = self.shared.lock();
            if queues.closed {
                return Err(closed());
            }
            match urgency {
                Urgency::Normal => queues.normal.push_back(waiting),
                Urgency::First => queues.urgent.push_back(waiting),
            }
        }
        self.shared.wake.notify_one();
        wait.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Wakes the thread so that it begins to look for commits of others.
    pub(crate) fn look(&self) {
        self.shared.wake.notify_one();
    }
}

impl Drop for Writer {
    /// What waits is still written; then the thread ends.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// After so long without a write the write-ahead log is emptied.
const REST: Duration = Duration::from_secs(1);
/// After that, commits of others are looked for so many times less often.
const SELDOM: u32 = 8;
/// Then, at most so many looks see no more than that nobody has touched the log. A commit is seen by its entry in the index of the log,
/// which comes after its sync; a log whose last write was seen a second ago holds no such commit, unless its sync takes that long.
const SAVED_LOOKS: u32 = 4;
/// After a write of our own, whose touch hides that of another, so many looks are whole.
const WHOLE_LOOKS: u32 = 2;
/// Heartbeats in the log that are worth emptying it as much as one other write.
const HEARTBEATS: u32 = 64;

struct Worker {
    options: Arc<Options>,
    shared: Arc<Shared>,
    hints: broadcast::Sender<Hint>,
    connection: Option<Connection>,
    numbers: Numbers,
    mirror: Mirror,
    log: LogFile,
    /// `PRAGMA data_version` at the last look: changes with commits of other connections, not with ours.
    seen_version: Option<i64>,
    /// The log at the last look; `None` when we have written since.
    seen_log: Option<Touched>,
    /// Looks that must be whole before one may be saved.
    looks_to_do: u32,
    /// Looks saved since the last whole one.
    looks_saved: u32,
    /// When the last look was.
    looked_at: Option<Instant>,
    /// What was written since the write-ahead log was emptied, in heartbeats.
    in_log: u32,
}

/// What one transaction takes.
struct Batch {
    jobs: Vec<Box<dyn Job>>,
    /// Heartbeats alone, which keep nobody from rest.
    heartbeats: bool,
}

impl Worker {
    fn run(mut self, opened: oneshot::Sender<Result<(), StorageError>>) {
        match self.open() {
            Ok(connection) => {
                self.connection = Some(connection);
                let _ = opened.send(Ok(()));
            }
            Err(fault) => {
                let _ = opened.send(Err(fault.into_storage(&self.options.path)));
                return;
            }
        }
        let mut idle = Duration::ZERO;
        loop {
            // Where nobody has written for a while, a look finds something seldom, and looks are all that an idle engine costs.
            let rests = idle >= REST;
            let pause = self.options.watch_interval * if rests { SELDOM } else { 1 };
            let Some(batch) = self.next_batch(pause) else {
                return;
            };
            let look = if batch.jobs.is_empty() {
                idle += pause;
                if self.in_log >= HEARTBEATS && idle >= REST {
                    self.empty_log();
                }
                true
            } else {
                let (changes, pages) = (self.changes(), self.log.pages());
                self.write(batch.jobs);
                // A cleaner that finds nothing to do keeps nobody from rest.
                if self.changes() != changes && !batch.heartbeats {
                    idle = Duration::ZERO;
                }
                if self.log.pages() != pages {
                    self.seen_log = None;
                    self.in_log =
                        self.in_log
                            .saturating_add(if batch.heartbeats { 1 } else { HEARTBEATS });
                    if self.log.is_full() {
                        self.copy_back();
                    }
                }
                self.is_look_due()
            };
            if look && self.look_for_others(rests) {
                idle = Duration::ZERO;
            }
        }
    }

    fn open(&mut self) -> Outcome<Connection> {
        let mut connection = open_writer(&self.options)?;
        self.log.follow(&mut connection)?;
        Ok(connection)
    }

    /// Rows changed by this connection, ever.
    fn changes(&self) -> Option<u64> {
        self.connection.as_ref().map(Connection::total_changes)
    }

    /// Copies the write-ahead log back into the file and empties it, if nobody reads from it now: what a rush has left.
    fn empty_log(&mut self) {
        self.in_log = 0;
        self.seen_log = None;
        let Some(connection) = &self.connection else {
            return;
        };
        self.log.was_copied_back();
        let emptied = connection
            .busy_timeout(Duration::ZERO)
            .and_then(|()| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        if let Err(error) = emptied.and(connection.busy_timeout(self.options.busy_timeout)) {
            tracing::debug!(%error, "the write-ahead log was not emptied; a later checkpoint does it");
        }
    }

    /// Copies what can be copied of a full log back into the file. After the answers: nobody waits for it.
    fn copy_back(&self) {
        let Some(connection) = &self.connection else {
            return;
        };
        self.log.was_copied_back();
        let copied = connection
            .cached("PRAGMA wal_checkpoint(PASSIVE)")
            .and_then(|mut statement| statement.query_row([], |_| Ok(())));
        if let Err(error) = copied {
            tracing::debug!(%error, "the write-ahead log was not copied back; a later checkpoint does it");
        }
    }

    /// Everything that waits, up to a bound; empty when it is time to look for commits of others; `None` at the end.
    fn next_batch(&self, pause: Duration) -> Option<Batch> {
        let mut queues = self.shared.lock();
        while queues.urgent.is_empty() && queues.normal.is_empty() {
            if queues.closed {
                return None;
            }
            if self.hints.receiver_count() == 0 {
                queues = self
                    .shared
                    .wake
                    .wait(queues)
                    .unwrap_or_else(PoisonError::into_inner);
            } else {
                let (back, timeout) = self
                    .shared
                    .wake
                    .wait_timeout(queues, pause)
                    .unwrap_or_else(PoisonError::into_inner);
                queues = back;
                if timeout.timed_out() || self.seen_version.is_none() {
                    break;
                }
            }
        }
        let mut jobs: Vec<Box<dyn Job>> =
            queues.urgent.drain(..).map(|waiting| waiting.job).collect();
        let heartbeats = !jobs.is_empty() && queues.normal.is_empty();
        let mut weight = 0;
        while let Some(next) = queues.normal.front() {
            if weight > 0 && weight + next.weight > BATCH_WEIGHT {
                break;
            }
            weight += next.weight.max(1);
            if let Some(waiting) = queues.normal.pop_front() {
                jobs.push(waiting.job);
            }
        }
        Some(Batch { jobs, heartbeats })
    }

    fn write(&mut self, mut batch: Vec<Box<dyn Job>>) {
        match self.attempt(&mut batch) {
            Attempt::OneFailed if batch.len() > 1 => {
                // Each by itself: the guilty one answers with its error, and a small one passes on a full disk.
                for job in batch {
                    self.write(vec![job]);
                }
            }
            Attempt::Committed | Attempt::OneFailed => {
                for job in batch {
                    job.answer(&self.options, None);
                }
            }
            Attempt::NotBegun(fault) | Attempt::Unknown(fault) => {
                let error = fault.into_storage(&self.options.path);
                for job in batch {
                    job.answer(&self.options, Some(Fault::Storage(again(&error))));
                }
            }
        }
    }

    /// One transaction over these operations.
    fn attempt(&mut self, batch: &mut [Box<dyn Job>]) -> Attempt {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => match self.open() {
                Ok(connection) => connection,
                Err(fault) => return Attempt::NotBegun(fault),
            },
        };
        let (attempt, keep) = self.attempt_on(&connection, batch);
        if keep {
            self.connection = Some(connection);
        } else {
            self.seen_version = None;
        }
        attempt
    }

    fn attempt_on(
        &mut self,
        connection: &Connection,
        batch: &mut [Box<dyn Job>],
    ) -> (Attempt, bool) {
        if let Err(error) = execute(connection, "BEGIN IMMEDIATE") {
            let fault = Fault::Sql(error);
            let keep = !fault.spoils_connection();
            return (Attempt::NotBegun(fault), keep);
        }
        self.log.make_room();
        self.mirror.follow(connection);
        let mut hints = Hints::default();
        for job in &mut *batch {
            let mut tx = Tx {
                conn: connection,
                numbers: &mut self.numbers,
                mirror: &mut self.mirror,
                hints: &mut hints,
                keeps_mirror: false,
            };
            let ran = job.run(&mut tx);
            if !tx.keeps_mirror {
                tx.mirror.forget_all();
            }
            if let Ran::Failed { spoils_connection } = ran {
                self.roll_back(connection);
                return (Attempt::OneFailed, !spoils_connection);
            }
        }
        if let Err(error) = self.commit(connection) {
            self.roll_back(connection);
            let full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
            let fault = Fault::Sql(error);
            let keep = !fault.spoils_connection();
            // A full disk means that nothing was kept: a smaller transaction may pass.
            return if full && batch.len() > 1 {
                (Attempt::OneFailed, keep)
            } else {
                (Attempt::Unknown(fault), keep)
            };
        }
        if self.hints.receiver_count() > 0 {
            if hints.work {
                let _ = self.hints.send(Hint::Work);
            }
            for hint in hints.others {
                let _ = self.hints.send(hint);
            }
        }
        (Attempt::Committed, true)
    }

    /// SQLite may have rolled back by itself (a full disk does that), then there is nothing to do.
    fn roll_back(&mut self, connection: &Connection) {
        self.mirror.forget_all();
        if !connection.is_autocommit()
            && let Err(error) = execute(connection, "ROLLBACK")
        {
            tracing::warn!(%error, "a failed transaction could not be rolled back");
        }
    }

    fn commit(&self, connection: &Connection) -> Result<(), rusqlite::Error> {
        match self.options.synchronous {
            Synchronous::Full => gather(|| execute(connection, "COMMIT")),
            Synchronous::Normal | Synchronous::Off => execute(connection, "COMMIT"),
        }
    }

    /// Whether a look is due although there is work: in a rush one in a pause is enough.
    fn is_look_due(&self) -> bool {
        self.seen_version.is_none()
            || self
                .looked_at
                .is_none_or(|at| at.elapsed() >= self.options.watch_interval)
    }

    /// Tells watchers when another connection has committed since the last look; whether somebody is at work.
    #[expect(
        clippy::disallowed_methods,
        reason = "how long ago the last look was, for the next one; no time of a row"
    )]
    fn look_for_others(&mut self, rests: bool) -> bool {
        if self.hints.receiver_count() == 0 {
            self.seen_version = None;
            return false;
        }
        let log = self.log.touched();
        let seen = std::mem::replace(&mut self.seen_log, log);
        if seen.is_none() || seen != log {
            self.looks_to_do = WHOLE_LOOKS;
        }
        let may_save = rests && self.looks_to_do == 0 && self.looks_saved < SAVED_LOOKS;
        if may_save && self.seen_version.is_some() {
            self.looks_saved += 1;
            return false;
        }
        self.looks_saved = 0;
        self.looks_to_do = self.looks_to_do.saturating_sub(1);
        self.looked_at = Some(Instant::now());
        let Some(connection) = &self.connection else {
            return false;
        };
        // Busy or damaged: the next write reports it, and the next look comes soon.
        let Ok(version) = data_version(connection) else {
            return false;
        };
        let other = self.seen_version.replace(version) != Some(version);
        if other {
            let _ = self.hints.send(Hint::Any);
        }
        // The log after a write of our own is nobody else's.
        other || (seen.is_some() && seen != log)
    }
}

enum Attempt {
    /// Answers stand.
    Committed,
    /// One operation failed and keeps its error; nothing was written.
    OneFailed,
    /// There was no transaction; nothing was written.
    NotBegun(Fault),
    /// COMMIT failed: whether it was written shows after the next start only.
    Unknown(Fault),
}

fn execute(connection: &Connection, sql: &str) -> Result<(), rusqlite::Error> {
    connection.cached(sql)?.execute([]).map(|_| ())
}

/// The same error for each operation of a transaction.
fn again(error: &StorageError) -> StorageError {
    match error {
        StorageError::Busy { backend } => StorageError::Busy { backend },
        StorageError::Full { backend, place } => StorageError::Full {
            backend,
            place: place.clone(),
        },
        StorageError::ReadOnly { backend, place } => StorageError::ReadOnly {
            backend,
            place: place.clone(),
        },
        StorageError::Corrupt {
            what,
            problem,
            task_run,
        } => StorageError::Corrupt {
            what: what.clone(),
            problem: problem.clone(),
            task_run: *task_run,
        },
        StorageError::NewerSchema { found, known } => StorageError::NewerSchema {
            found: *found,
            known: *known,
        },
        StorageError::Unavailable { backend, message } => StorageError::Unavailable {
            backend,
            message: message.clone(),
        },
        other => StorageError::Backend {
            backend: BACKEND,
            message: other.to_string(),
            retryable: other.is_retryable(),
            source: None,
        },
    }
}
