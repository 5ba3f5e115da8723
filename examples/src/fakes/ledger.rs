//! What a fake server was sent, by the call of the run that sent it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderMap, Method, Uri};
use tokio::sync::Notify;

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The stack run of the call, which the services send on as `x-request-id`. Empty when there is none.
    pub call: String,
    /// Method, path and query.
    pub request: String,
}

/// Requests in the order in which they came.
#[derive(Default)]
pub struct Ledger {
    entries: Mutex<Vec<Entry>>,
    changed: Notify,
}

impl Ledger {
    /// Enters a request, before anything is done about it.
    pub fn enter(&self, method: &Method, uri: &Uri, headers: &HeaderMap) {
        let id = headers.get("x-request-id");
        let id = id.and_then(|id| id.to_str().ok()).unwrap_or_default();
        // `STACKRUN-ATTEMPT`
        let call = id.rsplit_once('-').map_or("", |(call, _attempt)| call);
        self.lock().push(Entry {
            call: call.to_owned(),
            request: format!("{method} {uri}"),
        });
        self.changed.notify_waiters();
    }

    /// Waits until so many requests came.
    pub async fn reached(&self, requests: usize) {
        loop {
            let changed = self.changed.notified();
            if self.lock().len() >= requests {
                return;
            }
            changed.await;
        }
    }

    /// All requests.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    /// How often each call sent a request.
    pub fn by_call(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for entry in self.lock().iter() {
            *counts.entry(entry.call.clone()).or_default() += 1;
        }
        counts
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        // A list of entries is whole at every point where a holder could panic.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
