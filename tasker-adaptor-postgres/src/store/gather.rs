//! Submits that come while others are being written go together: one statement and one wait for the disk for all of them.
//!
//! A submit alone is written at once. Invariants: the answer comes after the commit · what is wrong with one caller's runs
//! does not touch another's: after an error that is not about the connection each is tried alone.

use std::sync::{Arc, Mutex, PoisonError};

use tasker_adaptor::{Hint, NewTaskRun, StorageError, Timestamp};
use tokio::sync::oneshot;

use super::submit::{Answers, Asked, submit};
use crate::PostgresStorage;
use crate::error::unavailable;

/// Batches under way at one time: while one waits for the disk the next one is sent.
const BATCHES: usize = 2;

/// Runs in one batch, unless one caller has more.
const RUNS: usize = 512;

/// Submits that wait for their batch.
#[derive(Default)]
pub(crate) struct Gathering(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Vec<Request>,
    batches: usize,
}

struct Request {
    runs: Vec<NewTaskRun>,
    now: Timestamp,
    answer: oneshot::Sender<Result<Answers, StorageError>>,
}

impl Gathering {
    /// The next batch, or the end of one of the [`BATCHES`].
    fn next(&self) -> Vec<Request> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut runs = 0;
        let fit = queue.waiting.iter().take_while(|request| {
            let fits = runs < RUNS;
            runs += request.runs.len();
            fits
        });
        let count = fit.count();
        if count == 0 {
            queue.batches -= 1;
        }
        queue.waiting.drain(..count).collect()
    }

    /// Whether somebody must be started who writes it.
    fn push(&self, request: Request) -> bool {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queue.waiting.push(request);
        let starts = queue.batches < BATCHES;
        queue.batches += usize::from(starts);
        starts
    }
}

pub(super) async fn gather(
    storage: &PostgresStorage,
    runs: Vec<NewTaskRun>,
    now: Timestamp,
) -> Result<Answers, StorageError> {
    let (answer, answered) = oneshot::channel();
    let request = Request { runs, now, answer };
    if storage.inner.gathering.push(request) {
        tokio::spawn(write_all(storage.clone()));
    }
    answered
        .await
        .unwrap_or_else(|_| Err(unavailable("the process is ending")))
}

async fn write_all(storage: PostgresStorage) {
    let gathering = Arc::clone(&storage.inner.gathering);
    loop {
        let requests = gathering.next();
        if requests.is_empty() {
            return;
        }
        write(&storage, requests).await;
    }
}

async fn write(storage: &PostgresStorage, mut requests: Vec<Request>) {
    let outcome = write_some(storage, &requests).await;
    match outcome {
        Ok(mut answers) => {
            for request in requests {
                let rest = answers.split_off(request.runs.len().min(answers.len()));
                let own = std::mem::replace(&mut answers, rest);
                // An error says that the caller does not wait any more.
                let _ = request.answer.send(Ok(own));
            }
        }
        Err(StorageError::Unavailable { backend, message }) => {
            for request in requests {
                let message = message.clone();
                let lost = StorageError::Unavailable { backend, message };
                let _ = request.answer.send(Err(lost));
            }
        }
        Err(error) if requests.len() == 1 => {
            if let Some(request) = requests.pop() {
                let _ = request.answer.send(Err(error));
            }
        }
        Err(_) => {
            for request in requests {
                let alone = write_some(storage, std::slice::from_ref(&request)).await;
                let _ = request.answer.send(alone);
            }
        }
    }
}

async fn write_some(
    storage: &PostgresStorage,
    requests: &[Request],
) -> Result<Answers, StorageError> {
    let asked: Vec<Asked<'_>> = requests
        .iter()
        .flat_map(|request| request.runs.iter().map(|run| (run, request.now)))
        .collect();
    let mut session = storage.session().await?;
    let answers = submit(&mut session, &asked).await?;
    if answers.iter().flatten().any(|submitted| submitted.created) {
        storage.hint([Hint::Work]);
    }
    Ok(answers)
}
