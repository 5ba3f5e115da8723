//! Every short history of a hot frame: all event sequences to a depth, with the invariants checked after each event.

use std::collections::{BTreeMap, BTreeSet};

use tasker_adaptor::{
    CallSeq, CommitRefused, DeliverySource, Epoch, FrameNext, Json, Lease, MadeKind, NewStackRun,
    Outcome, StackRunId, StackStatus, TaskRunId, Timestamp, TurnCommit, TurnNo, WorkerId,
};

use super::frame::{Effect, Event, Frame, FrameFacts, Phase, Ready, ReadySource};

const DEPTH: usize = 10;

/// The world around the frame: what storage has, what the VM is doing, what was asked of whom.
#[derive(Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is something that may or may not be under way"
)]
struct World {
    frame: Frame,
    /// The VM is in a turn (or was never started).
    turning: bool,
    /// The turn that was sent and not stored.
    commit: Option<TurnCommit>,
    /// A turn was stored and its receipt is on the way.
    receipt: Option<(StackStatus, Vec<NewStackRun>)>,
    /// A release was sent and not answered.
    releasing: bool,
    /// Unread children are being read.
    reading: bool,
    committed_turns: u32,
    /// Children in committed rows.
    rows: BTreeMap<CallSeq, Row>,
    /// Outcomes given to the machine that no write has recorded yet.
    held: BTreeSet<CallSeq>,
    over: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Row {
    kind: Kind,
    state: RowState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Born claimed: asked here.
    Here,
    /// Asked by another worker.
    Elsewhere,
    Timer,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RowState {
    /// Born claimed, and its turn's receipt is not here.
    Unbegun,
    Open,
    /// Answered, and the answer is in the machine's hands.
    Answered,
    Settled,
    Delivered,
    Dropped,
}

fn id(n: u32) -> StackRunId {
    StackRunId::from_parts(Timestamp::from_millis(0), u128::from(n))
}

fn outcome(seq: CallSeq) -> Outcome {
    Outcome::Completed(Some(Json::from(&seq.0).unwrap()))
}

impl World {
    fn new() -> Self {
        let facts = FrameFacts {
            id: id(1_000),
            task_run: TaskRunId::from_parts(Timestamp::from_millis(0), 0),
            lease: Lease {
                worker: WorkerId::from_parts(Timestamp::from_millis(0), 1),
                epoch: Epoch(1),
            },
        };
        Self {
            frame: Frame::loading(
                facts,
                TurnNo(0),
                0,
                Timestamp::from_millis(0),
                false,
                BTreeMap::new(),
            ),
            turning: true,
            commit: None,
            receipt: None,
            releasing: false,
            reading: false,
            committed_turns: 0,
            rows: BTreeMap::new(),
            held: BTreeSet::new(),
            over: false,
        }
    }

    /// Every event that could happen now.
    fn enabled(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.turning && !self.over {
            for made in [
                &[][..],
                &[Kind::Here],
                &[Kind::Elsewhere],
                &[Kind::Here, Kind::Timer],
            ] {
                steps.push(Step::TurnEnds {
                    made: made.to_vec(),
                    drop: None,
                    ends: false,
                });
            }
            for (seq, row) in &self.rows {
                if row.state == RowState::Open && row.kind != Kind::Elsewhere {
                    steps.push(Step::TurnEnds {
                        made: vec![],
                        drop: Some(*seq),
                        ends: false,
                    });
                }
            }
            steps.push(Step::TurnEnds {
                made: vec![Kind::Here],
                drop: None,
                ends: true,
            });
        }
        if self.commit.is_some() {
            steps.push(Step::CommitStored);
            steps.push(Step::CommitRefused(CommitRefused::Superseded));
            steps.push(Step::CommitRefused(CommitRefused::LeaseLost));
        }
        if self.receipt.is_some() {
            steps.push(Step::Receipt);
        }
        for (seq, row) in &self.rows {
            match (row.kind, row.state) {
                (Kind::Here, RowState::Open) => steps.push(Step::Answer(*seq)),
                (Kind::Elsewhere, RowState::Open) => {
                    steps.push(Step::SettledElsewhere(*seq));
                    if !self.over {
                        steps.push(Step::Claim(*seq));
                    }
                }
                (Kind::Timer, RowState::Open) if !self.over => steps.push(Step::TimerDue(*seq)),
                _ => {}
            }
        }
        if !self.over {
            if self.reading || self.rows.values().any(|row| row.state == RowState::Settled) {
                steps.push(Step::Read);
            }
            steps.push(Step::Park);
            steps.push(Step::LeaseLost);
            steps.push(Step::VmLost);
        }
        if self.releasing {
            steps.push(Step::Released);
        }
        steps
    }

    fn take(&mut self, step: &Step) {
        let event = match step {
            Step::TurnEnds { made, drop, ends } => {
                self.turning = false;
                let base = self.rows.len() as u32;
                let made = made
                    .iter()
                    .enumerate()
                    .map(|(n, kind)| made_child(base + n as u32 + 1, *kind))
                    .collect();
                let next = if *ends {
                    FrameNext::Completed(None)
                } else {
                    FrameNext::Suspended
                };
                Event::TurnEnded {
                    time: Timestamp::from_millis(1),
                    made,
                    dropped: drop.iter().copied().collect(),
                    logs: Vec::new(),
                    next,
                }
            }
            Step::CommitStored => {
                let turn = self.commit.take().unwrap();
                self.apply(&turn);
                let unread = self.rows.values().any(|row| row.state == RowState::Settled);
                let status = if unread {
                    StackStatus::PendingResume
                } else {
                    StackStatus::SuspendedWaitingChild
                };
                self.receipt = Some((status, turn.made));
                return;
            }
            Step::Receipt => {
                let (status, made) = self.receipt.take().unwrap();
                Event::Committed { status, made }
            }
            Step::CommitRefused(reason) => {
                self.commit = None;
                Event::Refused(*reason)
            }
            Step::Answer(seq) => {
                self.rows.get_mut(seq).unwrap().state = RowState::Answered;
                self.held.insert(*seq);
                Event::Answered {
                    seq: *seq,
                    id: id(seq.0),
                    epoch: Epoch(1),
                    outcome: outcome(*seq),
                }
            }
            Step::SettledElsewhere(seq) => {
                self.rows.get_mut(seq).unwrap().state = RowState::Settled;
                return;
            }
            Step::Claim(seq) => {
                self.rows.get_mut(seq).unwrap().kind = Kind::Here;
                Event::CallClaimed {
                    seq: *seq,
                    epoch: Epoch(1),
                }
            }
            Step::TimerDue(seq) => Event::TimerDue { seq: *seq },
            Step::Read => {
                self.reading = false;
                Event::Recorded(
                    self.rows
                        .iter()
                        .filter(|(_, row)| row.state == RowState::Settled)
                        .map(|(seq, _)| Ready {
                            seq: *seq,
                            id: id(seq.0),
                            source: ReadySource::Recorded,
                            outcome: outcome(*seq),
                        })
                        .collect(),
                )
            }
            Step::Park => Event::Park,
            Step::Released => {
                self.releasing = false;
                Event::Parked
            }
            Step::LeaseLost => Event::LeaseLost,
            Step::VmLost => {
                self.turning &= self.commit.is_some() || self.receipt.is_some();
                Event::VmLost
            }
        };
        let mut effects = Vec::new();
        self.frame.step(event, &mut effects);
        for effect in effects {
            self.carry_out(effect);
        }
    }

    /// Storage applies a turn: what PROTOCOL a3 demands of it is asserted here.
    fn apply(&mut self, turn: &TurnCommit) {
        assert_eq!(
            turn.turn.0, self.committed_turns,
            "turns are committed one after the other"
        );
        self.committed_turns += 1;
        for delivery in &turn.delivered {
            let row = self
                .rows
                .get_mut(&delivery.seq)
                .expect("only committed children are delivered");
            let expected = match &delivery.source {
                DeliverySource::Local { outcome: given, .. } => {
                    assert_eq!(*given, outcome(delivery.seq));
                    self.held.remove(&delivery.seq);
                    RowState::Answered
                }
                DeliverySource::Recorded => RowState::Settled,
                DeliverySource::Timer => RowState::Open,
            };
            assert_eq!(
                row.state, expected,
                "child {} is delivered once",
                delivery.seq
            );
            row.state = RowState::Delivered;
        }
        for made in &turn.made {
            let kind = match &made.kind {
                MadeKind::Timer { .. } => Kind::Timer,
                _ if made.claimed => Kind::Here,
                _ => Kind::Elsewhere,
            };
            // A pending row is anybody's from now on; of the others nothing happens before `Begin`.
            let state = match kind {
                Kind::Elsewhere => RowState::Open,
                Kind::Here | Kind::Timer => RowState::Unbegun,
            };
            let seq = CallSeq(self.rows.len() as u32 + 1);
            self.rows.insert(seq, Row { kind, state });
        }
        for dropped in &turn.dropped {
            let row = self
                .rows
                .iter_mut()
                .find(|(seq, _)| id(seq.0) == *dropped)
                .expect("known")
                .1;
            if matches!(row.state, RowState::Open | RowState::Answered) {
                row.state = RowState::Dropped;
            }
        }
        if turn.next != FrameNext::Suspended {
            self.over = true;
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Deliver(items) => {
                assert!(
                    !self.turning && self.commit.is_none() && self.receipt.is_none(),
                    "one uncommitted turn a frame"
                );
                assert!(!self.over, "nothing is delivered to a frame that is over");
                let seqs: BTreeSet<CallSeq> = items.iter().map(|ready| ready.seq).collect();
                assert_eq!(seqs.len(), items.len(), "a child is delivered once");
                self.turning = true;
            }
            Effect::Commit(turn) => {
                assert!(
                    self.commit.is_none() && self.receipt.is_none(),
                    "one uncommitted turn a frame"
                );
                self.commit = Some(turn);
            }
            Effect::Begin { seq, row: made } => {
                let row = self
                    .rows
                    .get_mut(&seq)
                    .expect("a child is begun after it was committed");
                assert_eq!(id(seq.0), made.id);
                if made.claimed || row.kind == Kind::Timer {
                    assert_eq!(row.state, RowState::Unbegun, "a child is begun once");
                    row.state = RowState::Open;
                }
            }
            Effect::Stop { seq, .. } => {
                self.held.remove(&seq);
            }
            Effect::Record { seq, .. } => {
                let unsure = self.receipt.is_some();
                let row = self.rows.get_mut(&seq).unwrap();
                // Whoever has no receipt writes again, and storage refuses the second.
                let twice = unsure && row.state == RowState::Delivered;
                assert!(
                    self.held.remove(&seq) || twice,
                    "outcome {seq} is recorded once"
                );
                if row.state == RowState::Answered {
                    row.state = RowState::Settled;
                }
            }
            Effect::ReadUnread => self.reading = true,
            Effect::Release => self.releasing = true,
            Effect::Reload | Effect::Drop | Effect::Ended => {
                self.over = true;
                self.turning = false;
                self.commit = None;
                self.receipt = None;
            }
        }
    }

    fn check(&self) {
        let gone = self.over && self.commit.is_none() && self.receipt.is_none();
        if gone || self.frame.is_idle() {
            assert!(self.held.is_empty(), "results are lost: {:?}", self.held);
        }
        if matches!(self.frame.phase(), Phase::Waiting) {
            assert!(
                self.frame.is_idle(),
                "something is ready and the frame waits"
            );
        }
        if matches!(self.frame.phase(), Phase::Committing { .. }) {
            assert!(
                self.commit.is_some() || self.receipt.is_some() || self.over,
                "a turn is neither sent nor answered"
            );
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    TurnEnds {
        made: Vec<Kind>,
        drop: Option<CallSeq>,
        ends: bool,
    },
    CommitStored,
    Receipt,
    CommitRefused(CommitRefused),
    Answer(CallSeq),
    /// This worker claims a pending call.
    Claim(CallSeq),
    SettledElsewhere(CallSeq),
    TimerDue(CallSeq),
    Read,
    Park,
    Released,
    LeaseLost,
    VmLost,
}

fn made_child(n: u32, kind: Kind) -> NewStackRun {
    NewStackRun {
        id: id(n),
        kind: match kind {
            Kind::Timer => MadeKind::Timer {
                path: "sleep".to_owned(),
                args: Json::null(),
                due_at: Timestamp::from_millis(5),
            },
            Kind::Here | Kind::Elsewhere => call(),
        },
        claimed: kind == Kind::Here,
    }
}

fn call() -> MadeKind {
    MadeKind::Call {
        service: "s".to_owned(),
        path: "m".to_owned(),
        args: Json::null(),
        policy: None,
    }
}

fn walk(world: &World, depth: usize, path: &mut Vec<Step>, histories: &mut u64) {
    *histories += 1;
    if depth == 0 {
        return;
    }
    for step in world.enabled() {
        let mut next = world.clone();
        path.push(step.clone());
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            next.take(&step);
            next.check();
        }));
        assert!(result.is_ok(), "after {path:#?}");
        walk(&next, depth - 1, path, histories);
        path.pop();
    }
}

#[test]
fn every_short_history_keeps_the_invariants() {
    let mut histories = 0;
    walk(&World::new(), DEPTH, &mut Vec::new(), &mut histories);
    assert!(
        histories > 400_000,
        "only {histories} histories were walked"
    );
    println!("{histories} histories of up to {DEPTH} events");
}

#[test]
fn a_commit_that_suspends_reads_what_settled_meanwhile() {
    let mut world = World::new();
    let steps = [
        Step::TurnEnds {
            made: vec![Kind::Here, Kind::Elsewhere],
            drop: None,
            ends: false,
        },
        Step::CommitStored,
        Step::Receipt,
        Step::Answer(CallSeq(1)),
        Step::SettledElsewhere(CallSeq(2)),
        Step::TurnEnds {
            made: vec![],
            drop: None,
            ends: false,
        },
        Step::CommitStored,
        Step::Receipt,
    ];
    for step in &steps {
        world.take(step);
        world.check();
    }
    assert!(world.reading, "the settled child would be missed");
}

#[test]
fn a_child_that_was_read_before_the_receipt_of_its_turn_is_delivered_once() {
    let mut world = World::new();
    let steps = [
        Step::TurnEnds {
            made: vec![Kind::Elsewhere],
            drop: None,
            ends: false,
        },
        Step::CommitStored,
        Step::SettledElsewhere(CallSeq(1)),
        Step::Read,
        Step::Receipt,
        Step::Read,
        Step::TurnEnds {
            made: vec![],
            drop: None,
            ends: false,
        },
        Step::CommitStored,
        Step::Receipt,
    ];
    for step in &steps {
        world.take(step);
        world.check();
    }
    assert!(!world.turning, "it is delivered twice");
}

#[test]
fn run_names_no_clock_no_runtime_no_engine() {
    for (file, text) in [
        ("frame.rs", include_str!("frame.rs")),
        ("journal.rs", include_str!("journal.rs")),
    ] {
        for word in [
            "std::time",
            "tokio",
            "rquickjs",
            "dyn Storage",
            "Instant",
            "async fn",
        ] {
            assert!(!text.contains(word), "run/{file} names {word}");
        }
    }
}
