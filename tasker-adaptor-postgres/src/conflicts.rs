//! Transactions that the server rolled back for the sake of another: a deadlock, a serialization failure.
//!
//! Nothing of them was written, so they may be sent again as they are.

use std::time::Duration;

use tasker_adaptor::StorageError;

use crate::error::is_conflict;

/// How often one is tried again before the caller hears of it.
const RETRIES: u32 = 12;

/// The conflicts that one request has met.
#[derive(Default)]
pub(crate) struct Conflicts(u32);

impl Conflicts {
    /// Whether to try again after this error. Waits first, a little longer each time.
    pub(crate) async fn allow_another_try(&mut self, error: &StorageError) -> bool {
        let tries = self.0;
        if tries >= RETRIES || !is_conflict(error) {
            return false;
        }
        tracing::debug!(%error, tries, "a transaction lost against another; it is tried again");
        tokio::time::sleep(Duration::from_millis(1 << tries.min(6))).await;
        self.0 += 1;
        true
    }
}
