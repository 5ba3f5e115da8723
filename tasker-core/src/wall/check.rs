//! What a child may say: its answers are untrusted input, and this file decides which of them are believed.
//!
//! A child is one trust domain: whoever took it over can lie about the frames that live in it (their calls, their results), as a task
//! can anyway. It cannot speak for frames that live elsewhere, answer what was not asked, number calls otherwise than the host
//! does, pass a limit, or put anything into the journal that the rest of the engine could not read back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tasker_adaptor::{BlockedReason, CallSeq, Json, Timestamp};

use super::answers::Answer;
use super::wire::Garbled;
use super::worker::{VmCommand, VmDid, VmKey, VmReport};
use crate::limits::{Limits, check_payload};
use crate::run::{EXECUTE, History, TASKS};
use crate::service::CallPolicy;
use crate::vm::{Made, ToolNames, Turn, TurnEnd};

/// The longest wait that a timer can hold, in milliseconds.
const MAX_DELAY_MS: u64 = 9_000_000_000_000_000;
/// What a cut line may have over its limit: the mark, or the words that say which limit was passed.
const LINE_MARK: usize = 256;

/// The longest answer of a child whose frames have these limits, in bytes. What a turn puts out is counted towards the frame's
/// memory; one payload may pass that before it is noticed, and texts of failures come on top.
pub(crate) const fn max_answer(limits: &Limits) -> u64 {
    limits.memory_bytes as u64 * 2 + limits.payload_bytes as u64 * 2 + (4 << 20)
}

/// What the host knows about a child's VMs, and what it has asked.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    vms: HashMap<VmKey, Known>,
    /// In the order asked, which is the order of the answers.
    asked: VecDeque<Asked>,
}

/// What the host knows about a VM.
#[derive(Debug)]
struct Known {
    limits: Arc<Limits>,
    tools: Arc<ToolNames>,
    /// Names the frame, whatever VM it has.
    frame: [u8; 32],
    /// Children made.
    made: u32,
    /// Of these neither delivered nor given up.
    open: Set,
    /// Children that were given up before a replay still count as open.
    replayed: bool,
    /// Lines written since the VM was built.
    lines: u32,
    ended: bool,
    /// It was dropped while it had something to answer.
    gone: bool,
}

/// A command that has an answer.
#[derive(Debug)]
struct Asked {
    key: VmKey,
    time: Timestamp,
    what: What,
}

#[derive(Debug)]
enum What {
    First,
    /// With the recorded turns that are still to be run.
    Replay(usize),
    Turn(Vec<CallSeq>),
}

/// An answer that is believed.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are reports, and moving one is cheaper than a box"
)]
pub(crate) enum Believed {
    Report(VmReport),
    /// A replay goes on.
    Progress,
}

impl Ledger {
    /// Notes a command that is about to be sent. False: it is of a VM that is not here, and must not be sent.
    pub(crate) fn note(&mut self, command: &VmCommand) -> bool {
        match command {
            VmCommand::Start {
                key,
                start,
                history,
            } => {
                let (made, open) = history.as_deref().map(open_after).unwrap_or_default();
                self.vms.insert(
                    *key,
                    Known {
                        limits: Arc::clone(&start.limits),
                        tools: Arc::clone(&start.tools),
                        frame: start.seed,
                        made,
                        open,
                        replayed: history.is_some(),
                        lines: 0,
                        ended: false,
                        gone: false,
                    },
                );
                self.asked.push_back(Asked {
                    key: *key,
                    time: start.time,
                    what: history
                        .as_ref()
                        .map_or(What::First, |history| What::Replay(history.turns().len())),
                });
                true
            }
            VmCommand::Deliver { key, deliver } => {
                let is_here = self.vms.contains_key(key);
                if is_here {
                    self.asked.push_back(Asked {
                        key: *key,
                        time: deliver.time,
                        what: What::Turn(deliver.items.iter().map(|(seq, _)| *seq).collect()),
                    });
                }
                is_here
            }
            VmCommand::Drop { key } => {
                // What it was asked before is answered still.
                if self.asked.iter().any(|asked| asked.key == *key) {
                    if let Some(vm) = self.vms.get_mut(key) {
                        vm.gone = true;
                    }
                    return true;
                }
                self.vms.remove(key).is_some()
            }
        }
    }

    /// Commands that wait for their answers.
    pub(crate) fn waiting(&self) -> usize {
        self.asked.len()
    }

    /// The frame whose command is under way: which VM, and its name.
    pub(crate) fn under_way(&self) -> Option<(VmKey, [u8; 32])> {
        let asked = self.asked.front()?;
        Some((asked.key, self.vms.get(&asked.key)?.frame))
    }

    /// Limits of the frame whose command is under way.
    pub(crate) fn limits_under_way(&self) -> Option<&Arc<Limits>> {
        let asked = self.asked.front()?;
        self.vms.get(&asked.key).map(|vm| &vm.limits)
    }

    /// All VMs that were here; nothing is known any more.
    pub(crate) fn clear(&mut self) -> Vec<VmKey> {
        self.asked.clear();
        let mut keys: Vec<VmKey> = self.vms.drain().map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys
    }

    /// Whether an answer is believed. After an error nothing that the child says is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&mut self, answer: Answer) -> Result<Believed, Garbled> {
        let key = match &answer {
            Answer::Turned(key, ..)
            | Answer::Replayed(key, _)
            | Answer::Diverged(key, _)
            | Answer::ReplayedOne(key) => *key,
            Answer::Ready(_) | Answer::Fault(_) => {
                return Err(Garbled("it answers what was not asked"));
            }
        };
        let asked = self
            .asked
            .front_mut()
            .filter(|asked| asked.key == key)
            .ok_or(Garbled("it answers what was not asked"))?;
        let vm = self
            .vms
            .get_mut(&key)
            .ok_or(Garbled("it answers for a VM that is not there"))?;
        let memory = match &answer {
            // What it says is not checked, but it can count for no more than its frame may take.
            Answer::Turned(_, bytes, _) | Answer::Replayed(_, bytes) => {
                Some((*bytes).min(vm.limits.memory_bytes))
            }
            _ => None,
        };
        let what = match (answer, &mut asked.what) {
            (Answer::ReplayedOne(_), What::Replay(left)) => {
                *left = left
                    .checked_sub(1)
                    .ok_or(Garbled("it replays more than was recorded"))?;
                return Ok(Believed::Progress);
            }
            (Answer::Replayed(..), What::Replay(_)) => VmDid::Replayed,
            (Answer::Diverged(_, reason), What::Replay(_)) => {
                vm.ended = true;
                VmDid::Diverged(diverged(reason)?)
            }
            (Answer::Turned(_, _, turn), What::First) => VmDid::Turned(vm.turned(turn, &[])?),
            (Answer::Turned(_, _, turn), What::Turn(items)) => {
                let items = std::mem::take(items);
                VmDid::Turned(vm.turned(turn, &items)?)
            }
            _ => return Err(Garbled("it answers otherwise than it was asked")),
        };
        let time = asked.time;
        let gone = vm.gone;
        self.asked.pop_front();
        if gone && !self.asked.iter().any(|asked| asked.key == key) {
            self.vms.remove(&key);
        }
        Ok(Believed::Report(VmReport {
            key,
            time,
            memory,
            what,
        }))
    }
}

fn open_after(history: &History) -> (u32, Set) {
    let made = history.made();
    let mut open = Set::default();
    for seq in 1..=made {
        open.insert(seq);
    }
    for (seq, _) in history.turns().iter().flat_map(|turn| &turn.items) {
        open.remove(seq.0);
    }
    (made, open)
}

fn diverged(reason: BlockedReason) -> Result<BlockedReason, Garbled> {
    match &reason {
        BlockedReason::Diverged { seq, .. } if seq.0 > 0 => Ok(reason),
        _ => Err(Garbled("a divergence at no call")),
    }
}

impl Known {
    fn turned(&mut self, turn: Turn, delivered: &[CallSeq]) -> Result<Turn, Garbled> {
        let may = !self.ended;
        let limits = Arc::clone(&self.limits);
        for made in &turn.made {
            if !may {
                return Err(Garbled("a frame that has ended makes calls"));
            }
            self.made += 1;
            if self.made > limits.calls {
                return Err(Garbled("it makes more calls than its limit"));
            }
            self.open.insert(self.made);
            self.check_made(made, &limits)?;
        }
        for seq in &turn.dropped {
            if !self.open.remove(seq.0) {
                return Err(Garbled("it gives up a call that is not open"));
            }
        }
        for seq in delivered {
            self.open.remove(seq.0);
        }
        if !self.replayed && self.open.len() > limits.open_calls {
            return Err(Garbled("it has more open calls than its limit"));
        }
        for line in &turn.logs {
            self.lines += 1;
            let room = limits.log_line_bytes.saturating_add(LINE_MARK);
            let data = line.data.as_ref().map_or(0, |data| data.text().len());
            if self.lines > limits.log_lines.saturating_add(1)
                || line.message.len() > room
                || data > limits.log_line_bytes
            {
                return Err(Garbled(
                    "it writes more lines, or longer ones, than its limit",
                ));
            }
        }
        match &turn.end {
            TurnEnd::Waiting if !may => return Err(Garbled("a frame that has ended waits")),
            TurnEnd::Waiting if self.open.is_empty() => {
                return Err(Garbled("it waits for nothing"));
            }
            TurnEnd::Waiting => {}
            TurnEnd::Completed(value) => {
                self.ended = true;
                if !may {
                    return Err(Garbled("a frame that has ended ends again"));
                }
                if let Some(value) = value {
                    check_json(value, &limits)?;
                }
            }
            TurnEnd::Failed(_) => self.ended = true,
        }
        Ok(turn)
    }

    fn check_made(&self, made: &Made, limits: &Limits) -> Result<(), Garbled> {
        match made {
            Made::Call {
                service,
                path,
                args,
                policy,
            } => {
                if self.tools.canonical(service) != service {
                    return Err(Garbled("a call by a name that is not the service's own"));
                }
                if service == TASKS && path == EXECUTE {
                    return Err(Garbled("a nested task as if it were a call"));
                }
                if !args.text().starts_with('[') {
                    return Err(Garbled("arguments that are not an array"));
                }
                if policy
                    .as_ref()
                    .is_some_and(|policy| CallPolicy::parse(policy).is_err())
                {
                    return Err(Garbled("a policy of a call that is none"));
                }
                check_json(args, limits)
            }
            Made::Task { name, input } => {
                if name.is_empty() {
                    return Err(Garbled("a nested task without a name"));
                }
                check_json(input, limits)
            }
            Made::Timer { delay_ms, .. } if *delay_ms > MAX_DELAY_MS => {
                Err(Garbled("a timer that is longer than one can be"))
            }
            Made::Timer { .. } | Made::Signal { .. } => Ok(()),
        }
    }
}

fn check_json(json: &Json, limits: &Limits) -> Result<(), Garbled> {
    // Arguments stand in one array, those of a chain in two.
    let limits = Limits {
        json_depth: limits.json_depth.saturating_add(2),
        ..limits.clone()
    };
    check_payload(json, &limits).map_err(|_| Garbled("a payload passes its limit"))
}

/// Small numbers, mostly without gaps.
#[derive(Debug, Default)]
struct Set {
    words: Vec<u64>,
    count: u32,
}

impl Set {
    fn insert(&mut self, number: u32) {
        let (word, bit) = (number as usize / 64, number % 64);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.count += u32::from(self.words[word] >> bit & 1 == 0);
        self.words[word] |= 1 << bit;
    }

    /// Whether it was there.
    fn remove(&mut self, number: u32) -> bool {
        let (word, bit) = (number as usize / 64, number % 64);
        let Some(word) = self.words.get_mut(word) else {
            return false;
        };
        let was = *word >> bit & 1 == 1;
        *word &= !(1 << bit);
        self.count -= u32::from(was);
        was
    }

    const fn len(&self) -> u32 {
        self.count
    }

    const fn is_empty(&self) -> bool {
        self.count == 0
    }
}
