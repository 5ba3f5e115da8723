//! The status words, the only ones, everywhere: columns, JSON, command line, console.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// All of them, in the order of a life.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in columns, JSON and messages.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = crate::StorageError;

            fn from_str(word: &str) -> Result<Self, crate::StorageError> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    other => Err(crate::StorageError::corrupt(
                        stringify!($name),
                        format!("unknown word {other:?}"),
                    )),
                }
            }
        }
    };
}

words! {
    /// Where a task run is.
    RunStatus {
        /// Submitted; no worker has begun.
        Queued = "queued",
        /// A worker has the root frame's VM.
        Processing = "processing",
        /// The root frame is parked: only rows remain.
        Suspended = "suspended",
        /// Needs a person; nothing is lost. The reason is typed.
        Blocked = "blocked",
        /// Ended with a result.
        Completed = "completed",
        /// Ended with a failure.
        Failed = "failed",
        /// Ended by a cancel.
        Cancelled = "cancelled",
    }
}

words! {
    /// Where a stack run is.
    StackStatus {
        /// Waits for a worker (a timer: for its time; a signal wait: for its signal).
        Pending = "pending",
        /// A worker works on it.
        Processing = "processing",
        /// A frame that waits for at least one open child.
        SuspendedWaitingChild = "suspended_waiting_child",
        /// A frame with a settled child that it has not seen.
        PendingResume = "pending_resume",
        /// Needs a person.
        Blocked = "blocked",
        /// Settled with a value.
        Completed = "completed",
        /// Settled with a failure.
        Failed = "failed",
        /// Ended by a cancel, a cleared timer or an aborted call.
        Cancelled = "cancelled",
    }
}

words! {
    /// What a stack run is.
    StackKind {
        /// Executes JavaScript: the root of a task run, or a nested task.
        Frame = "frame",
        /// Asks a service.
        Call = "call",
        /// Waits for a time.
        Timer = "timer",
        /// Waits for a signal of a name.
        Signal = "signal",
    }
}

impl RunStatus {
    /// Completed, failed or cancelled: never changes again.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl StackStatus {
    /// Completed, failed or cancelled: never changes again.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// Completed or failed: its frame is told. (A cancelled child is never delivered.)
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}
