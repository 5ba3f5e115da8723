//! Ids and counters, each a type of its own.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Timestamp;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The id with these 128 bits.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// A UUIDv7 of this time and this randomness; only the low 74 bits of `random` are used.
            pub const fn from_parts(time: Timestamp, random: u128) -> Self {
                let millis = if time.as_millis() < 0 { 0 } else { time.as_millis() as u64 };
                let time = ((millis & 0xffff_ffff_ffff) as u128) << 80;
                let random_a = ((random >> 62) & 0xfff) << 64;
                let random_b = random & 0x3fff_ffff_ffff_ffff;
                Self(Uuid::from_u128(time | (7 << 76) | random_a | (0b10 << 62) | random_b))
            }

            /// The id as a UUID.
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_id! {
    /// Names one task run. A UUIDv7, so that ids sort by time of submission.
    TaskRunId
}
uuid_id! {
    /// Names one stack run: a frame, call, timer or signal wait. A UUIDv7.
    StackRunId
}
uuid_id! {
    /// Names one worker. Used once: an engine takes a new one at each start and after each lost lease.
    WorkerId
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl $name {
            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// Position of a child among the children of its frame, from 1, without gaps, in the order made.
    CallSeq(u32)
}
counter! {
    /// Number of committed turns of a frame. In a [`crate::TurnCommit`]: how many were committed before it.
    TurnNo(u32)
}
counter! {
    /// Of a frame: the number of its VM incarnation, raised each time a VM is built from rows.
    /// Of a call: raised by every claim, give-back, take-over, timeout and retry. (row, epoch) names one attempt for ever.
    Epoch(u32)
}

/// Name of a task: 1 to 200 characters, no control characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskName(Arc<str>);

/// Version of a task: the hex SHA-256 of what was published. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskVersion(Arc<str>);

macro_rules! text_id {
    ($name:ident) => {
        impl $name {
            /// Takes the text as it is; whoever reads it from outside checks it first.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }
    };
}
text_id!(TaskName);
text_id!(TaskVersion);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_parts_is_a_version_7_uuid_that_sorts_by_time() {
        let early = TaskRunId::from_parts(Timestamp::from_millis(1_000), u128::MAX);
        let late = TaskRunId::from_parts(Timestamp::from_millis(1_001), 0);
        assert_eq!(early.as_uuid().get_version_num(), 7);
        assert_eq!(late.as_uuid().get_version_num(), 7);
        assert!(early < late);
        assert_eq!(early.to_string().parse::<TaskRunId>().unwrap(), early);
    }
}
