//! A frame's journal as the VM replays it, and the check that the code still makes the recorded calls.

use std::collections::BTreeMap;

use tasker_adaptor::{
    BlockedReason, CallRecord, CallSeq, FrameJournal, Json, Outcome, StackKind, StackRun,
    StorageError, Timestamp, TurnNo,
};

/// What a VM is rebuilt from: the calls that were made, and what was delivered in which turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// Recorded children by `seq`, from 1 without gaps.
    made: Vec<RecordedCall>,
    /// Turns after the first, in order.
    turns: Vec<RecordedTurn>,
}

/// A turn that delivered something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordedTurn {
    /// What the task saw as now.
    pub(crate) time: Timestamp,
    /// In delivery order.
    pub(crate) items: Vec<(CallSeq, Outcome)>,
}

/// A recorded child, as far as replay must make it again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RecordedCall {
    kind: StackKind,
    record: CallRecord,
}

/// A call as replay makes it: the same words as the record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attempted<'a> {
    Call {
        service: &'a str,
        path: &'a str,
        args: &'a str,
    },
    Task {
        name: &'a str,
        input: &'a str,
    },
    Timer {
        path: &'a str,
        delay_ms: u64,
    },
    Signal {
        name: &'a str,
    },
}

/// Replay does not match the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Divergence(pub(crate) BlockedReason);

impl History {
    /// Reads the history of a frame from its rows.
    ///
    /// # Errors
    /// `Corrupt`, naming the run, when rows are missing, doubled or unread where they must not be.
    pub(crate) fn from_journal(journal: &FrameJournal) -> Result<Self, StorageError> {
        let frame = &journal.frame;
        let corrupt = |problem: String| {
            StorageError::corrupt(format!("journal of frame {}", frame.id), problem)
                .in_run(frame.task_run)
        };
        let mut made = Vec::with_capacity(journal.children.len());
        let mut delivered: BTreeMap<u32, &StackRun> = BTreeMap::new();
        for (index, child) in journal.children.iter().enumerate() {
            if child.seq.0 as usize != index + 1 {
                return Err(corrupt(format!("child {} is missing", index + 1)));
            }
            made.push(RecordedCall {
                kind: child.kind,
                record: record_of(child),
            });
            if let Some(order) = child.delivered_order
                && delivered.insert(order, child).is_some()
            {
                return Err(corrupt(format!(
                    "two children were delivered as number {order}"
                )));
            }
        }
        if made.len() != frame.made_count as usize
            || delivered.len() != frame.delivered_count as usize
        {
            return Err(corrupt(format!(
                "the frame counts {} children and {} deliveries, the rows {} and {}",
                frame.made_count,
                frame.delivered_count,
                made.len(),
                delivered.len()
            )));
        }
        let mut turns: Vec<(TurnNo, RecordedTurn)> = Vec::new();
        for (place, (order, child)) in delivered.into_iter().enumerate() {
            if order as usize != place + 1 {
                return Err(corrupt(format!(
                    "a child was delivered as number {order}, and none as number {}",
                    place + 1
                )));
            }
            let (Some(turn), Some(time), Some(outcome)) = (
                child.delivered_turn,
                child.delivered_at,
                child.outcome.clone(),
            ) else {
                return Err(corrupt(format!(
                    "delivery {order} has no turn, time or outcome"
                )));
            };
            match turns.last_mut() {
                Some((last, recorded)) if *last == turn => {
                    recorded.items.push((child.seq, outcome));
                }
                Some((last, _)) if *last > turn => {
                    return Err(corrupt(format!(
                        "delivery {order} is in a turn before the one before it"
                    )));
                }
                _ => turns.push((
                    turn,
                    RecordedTurn {
                        time,
                        items: vec![(child.seq, outcome)],
                    },
                )),
            }
        }
        Ok(Self {
            made,
            turns: turns.into_iter().map(|(_, turn)| turn).collect(),
        })
    }

    /// Turns after the first, in order.
    pub(crate) fn turns(&self) -> &[RecordedTurn] {
        &self.turns
    }

    /// The history of these calls and turns: how one that was sent elsewhere is put together again.
    #[cfg(feature = "process-wall")]
    pub(crate) fn from_recorded(
        made: Vec<(StackKind, CallRecord)>,
        turns: Vec<RecordedTurn>,
    ) -> Self {
        Self {
            made: made
                .into_iter()
                .map(|(kind, record)| RecordedCall { kind, record })
                .collect(),
            turns,
        }
    }

    /// The recorded calls by `seq`, from 1.
    #[cfg(feature = "process-wall")]
    pub(crate) fn recorded(&self) -> impl ExactSizeIterator<Item = (StackKind, &CallRecord)> {
        self.made.iter().map(|call| (call.kind, &call.record))
    }

    /// How many children were made.
    pub(crate) fn made(&self) -> u32 {
        self.made.len() as u32
    }

    /// Checks call `seq` of a replay against the record.
    pub(crate) fn check(&self, seq: CallSeq, attempted: Attempted<'_>) -> Result<(), Divergence> {
        let Some(recorded) = seq
            .0
            .checked_sub(1)
            .and_then(|index| self.made.get(index as usize))
        else {
            return Err(diverged(seq, None, Some(attempted.record())));
        };
        if recorded.matches(attempted) {
            Ok(())
        } else {
            Err(diverged(
                seq,
                Some(recorded.record.clone()),
                Some(attempted.record()),
            ))
        }
    }

    /// The replay stopped after `made` calls: ended, or waits, before it made the next recorded one.
    pub(crate) fn stopped_at(&self, made: u32, how: &str) -> Divergence {
        let recorded = self.made.get(made as usize).map(|call| call.record.clone());
        let cause = match recorded {
            Some(_) => format!(
                "the code {how} where it made a call before: it was changed, or it depends on something that is not recorded"
            ),
            None => format!(
                "the code {how} earlier than before: it was changed, or it depends on something that is not recorded"
            ),
        };
        Divergence(BlockedReason::Diverged {
            seq: CallSeq(made + 1),
            recorded,
            attempted: None,
            cause,
        })
    }
}

impl RecordedCall {
    fn matches(&self, attempted: Attempted<'_>) -> bool {
        let CallRecord {
            service,
            path,
            args,
        } = &self.record;
        match (self.kind, attempted) {
            (
                StackKind::Call,
                Attempted::Call {
                    service: s,
                    path: p,
                    args: a,
                },
            ) => service == s && path == p && args == a,
            (StackKind::Frame, Attempted::Task { name, input }) => path == name && args == input,
            // A nested task that did not exist was recorded as a call of the service `tasks`.
            (StackKind::Call, Attempted::Task { name, input }) => {
                service == TASKS && path == EXECUTE && *args == execute_args(name, input)
            }
            (StackKind::Timer, Attempted::Timer { path: p, delay_ms }) => {
                path == p && *args == delay_ms.to_string()
            }
            (StackKind::Signal, Attempted::Signal { name }) => path == name,
            _ => false,
        }
    }
}

/// Service name of nested tasks.
pub(crate) const TASKS: &str = "tasks";
/// Method name of nested tasks.
pub(crate) const EXECUTE: &str = "execute";

/// Argument text of `tasks.execute(name, input)`.
pub(crate) fn execute_args(name: &str, input: &str) -> String {
    format!("[{},{input}]", Json::from(name).unwrap_or_default())
}

impl Attempted<'_> {
    fn record(&self) -> CallRecord {
        let (service, path, args) = match *self {
            Attempted::Call {
                service,
                path,
                args,
            } => (service, path, args.to_owned()),
            Attempted::Task { name, input } => (TASKS, name, input.to_owned()),
            Attempted::Timer { path, delay_ms } => ("timer", path, delay_ms.to_string()),
            Attempted::Signal { name } => ("signal", name, String::new()),
        };
        CallRecord {
            service: service.to_owned(),
            path: path.to_owned(),
            args,
        }
    }
}

fn record_of(child: &StackRun) -> CallRecord {
    CallRecord {
        service: child.service.clone(),
        path: child.path.clone(),
        args: child
            .args
            .as_ref()
            .map(|json| json.text().to_owned())
            .unwrap_or_default(),
    }
}

fn diverged(
    seq: CallSeq,
    recorded: Option<CallRecord>,
    attempted: Option<CallRecord>,
) -> Divergence {
    let cause = match (&recorded, &attempted) {
        (None, _) => {
            "the code makes a call where it made none before: it was changed, or it depends on something that is not recorded"
        }
        (Some(r), Some(a)) if r.service == a.service && r.path == a.path => {
            "the same call with other arguments: they depend on something that is not recorded (a value kept outside the run, an order that is not fixed), or the code was changed"
        }
        _ => {
            "another call: the code was changed while the run was under way, or its path depends on something that is not recorded"
        }
    };
    Divergence(BlockedReason::Diverged {
        seq,
        recorded,
        attempted,
        cause: cause.to_owned(),
    })
}
