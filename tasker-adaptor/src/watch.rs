//! Hints that something is ready. They may be lost, late or false; every wake path is also polled.

use futures::stream::BoxStream;

use crate::TaskRunId;

/// What may have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A frame or call became claimable, or a frame owned by some worker was woken.
    Work,
    /// The run ended or was blocked.
    Ended(TaskRunId),
    /// A cancel was asked for, or done: owners look at the runs they hold.
    Cancel(TaskRunId),
    /// Something changed elsewhere; what is not known.
    Any,
}

/// Hints as they come. Ends when the storage closes.
pub type Hints = BoxStream<'static, Hint>;

/// Hints.
pub trait Watch: Send + Sync + 'static {
    /// Does: a stream of hints from now on, from this process and (as far as the backend can) from others.
    /// A slow reader loses hints and gets `Any` instead. Tested by: `watch_hints_at_work_and_ends`.
    fn watch(&self) -> Hints;
}
