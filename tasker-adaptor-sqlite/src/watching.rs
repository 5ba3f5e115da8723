//! [`Watch`] on SQLite: hints of this process by a channel, of other processes by `PRAGMA data_version`.

use futures::StreamExt as _;
use futures::stream;
use tasker_adaptor::{Hint, Hints, Watch};
use tokio::sync::broadcast::error::RecvError;

use crate::SqliteStorage;

/// Hints that a slow reader may leave unread before it gets `Any` for all of them.
pub(crate) const INBOX: usize = 1_024;

impl Watch for SqliteStorage {
    fn watch(&self) -> Hints {
        let receiver = self.inner.hints.subscribe();
        self.inner.writer.look();
        stream::unfold(receiver, |mut receiver| async move {
            match receiver.recv().await {
                Ok(hint) => Some((hint, receiver)),
                Err(RecvError::Lagged(_)) => Some((Hint::Any, receiver)),
                Err(RecvError::Closed) => None,
            }
        })
        .boxed()
    }
}
