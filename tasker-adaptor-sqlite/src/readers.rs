//! Threads that read, each with a connection of its own, beside the writer.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tasker_adaptor::StorageError;
use tokio::sync::oneshot;

use crate::cached::Cached as _;
use crate::connection::open_reader;
use crate::fault::{BACKEND, Fault, Outcome, closed};
use crate::options::Options;

type Job = Box<dyn FnOnce(Result<&Connection, Fault>) -> Spoilt + Send>;

/// Whether the connection should be opened anew.
type Spoilt = bool;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handle on the reading threads. Reads do not wait for writes, nor writes for reads (write-ahead log).
pub(crate) struct Readers {
    options: Arc<Options>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(crate) fn start(options: &Arc<Options>) -> Result<Self, StorageError> {
        let mut readers = Self {
            options: Arc::clone(options),
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                wake: Condvar::new(),
            }),
            threads: Vec::new(),
        };
        for number in 0..options.readers.max(1) {
            let shared = Arc::clone(&readers.shared);
            let options = Arc::clone(options);
            let thread = std::thread::Builder::new()
                .name(format!("tasker-sqlite-reader-{number}"))
                .spawn(move || run(&shared, &options))
                .map_err(|error| StorageError::Unavailable {
                    backend: BACKEND,
                    message: format!("a reader thread cannot be started: {error}"),
                })?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    /// Runs `work` in one snapshot of the database.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    {
        let (reply, wait) = oneshot::channel();
        let options = Arc::clone(&self.options);
        let job: Job = Box::new(move |connection| {
            let result = connection.and_then(|connection| snapshot(connection, work));
            let spoilt = result.as_ref().is_err_and(Fault::spoils_connection);
            let _ = reply.send(result.map_err(|fault| fault.into_storage(&options.path)));
            spoilt
        });
        {
            let mut queue = self.shared.lock();
            if queue.closed {
                return Err(closed());
            }
            queue.jobs.push_back(job);
        }
        self.shared.wake.notify_one();
        wait.await.unwrap_or_else(|_| Err(closed()))
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, options: &Options) {
    let mut connection: Option<Connection> = None;
    loop {
        let job = {
            let mut queue = shared.lock();
            loop {
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                if queue.closed {
                    return;
                }
                queue = shared
                    .wake
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        };
        let opened = match connection.take() {
            Some(connection) => Ok(connection),
            None => open_reader(options),
        };
        match opened {
            Ok(open) => {
                // A panicking read drops its reply, which tells the caller; the thread lives on.
                let spoilt =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(Ok(&open))))
                        .unwrap_or(true);
                if !spoilt {
                    connection = Some(open);
                }
            }
            Err(fault) => {
                job(Err(fault));
            }
        }
    }
}

fn snapshot<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Outcome<T>,
) -> Outcome<T> {
    connection.cached("BEGIN")?.execute([])?;
    let result = work(connection);
    // Ends the snapshot; nothing was written.
    let ended = connection
        .cached("ROLLBACK")
        .and_then(|mut statement| statement.execute([]));
    let value = result?;
    ended?;
    Ok(value)
}
