//! The commit of a batch of turns: locks, fences, writes, wakes (PROTOCOL a3).
//!
//! First trip: `BEGIN`, then runs, workers and rows locked in that order. The fences are decided here from the locked rows.
//! Second trip, only if a turn needs it: stored signals, and whether a frame that suspends has something to wait for.
//! Last trip: the writes as arrays, one statement each, and `COMMIT`. A refused turn is not in the arrays.

use std::collections::{HashMap, HashSet};

use tasker_adaptor::{
    CommitRefused, Delivery, DeliverySource, Failure, FrameNext, Hint, MadeKind, Outcome,
    RunStatus, StackKind, StackStatus, StorageError, TurnCommit, TurnReceipt,
};
use uuid::Uuid;

use super::locks::{self, Locked, LockedRow};
use super::tidy::tidy;
use super::write::{Birth, Writes};
use crate::PostgresStorage;
use crate::error::is_duplicate;
use crate::row::get;
use crate::session::{Session, uuids};
use crate::text;

type Answer = Result<TurnReceipt, CommitRefused>;

/// Frames of $1 that have an open or unread child beside $2. From the last child back: of many that were made, the first are answered first.
const HAS_MORE: &str = "SELECT f.id FROM tasker.stack_runs f CROSS JOIN LATERAL (SELECT 1 FROM tasker.stack_runs c WHERE c.task_run_id = f.task_run_id AND c.parent_id = f.id AND c.delivered_order IS NULL AND c.status <> 'cancelled' AND c.id <> ALL ($2) ORDER BY c.seq DESC LIMIT 1) c WHERE f.id = ANY ($1)";

const STATUSES: &str = "SELECT id, status FROM tasker.stack_runs WHERE id = ANY ($1)";

const STORED_SIGNALS: &str = "SELECT id, task_run_id, name, payload FROM tasker.signals WHERE task_run_id = ANY ($1) AND consumed_by IS NULL ORDER BY task_run_id, arrival FOR UPDATE";

pub(super) async fn commit(
    storage: &PostgresStorage,
    turns: &[TurnCommit],
) -> Result<Vec<Answer>, StorageError> {
    let mut session = storage.session().await?;
    let outcome = Batch::new(turns).run(&mut session).await;
    match outcome {
        Ok((answers, hints)) => {
            storage.hint(hints);
            Ok(answers)
        }
        Err(error) => {
            let rolled_back = session.rollback().await;
            if is_duplicate(&error) {
                return Err(StorageError::Misuse {
                    what: "a stack run was made with the id of another row; every row needs an id of its own".to_owned(),
                });
            }
            if let Err(lost) = rolled_back {
                tracing::debug!(%lost, "a failed transaction could not be rolled back; its connection is closed");
            }
            Err(error)
        }
    }
}

/// Rules that only a caller with a bug breaks.
pub(super) fn check_use(turns: &[TurnCommit]) -> Result<(), StorageError> {
    let mut frames = HashSet::new();
    let mut made = HashSet::new();
    for turn in turns {
        if !frames.insert(turn.frame) {
            return Err(StorageError::Misuse {
                what: format!("frame {} has two turns in one batch", turn.frame),
            });
        }
        if let Some(twice) = turn.made.iter().find(|new| !made.insert(new.id)) {
            return Err(StorageError::Misuse {
                what: format!(
                    "stack run {} was made twice; every row needs an id of its own",
                    twice.id
                ),
            });
        }
        let writes =
            !turn.delivered.is_empty() || !turn.made.is_empty() || !turn.dropped.is_empty();
        if writes && matches!(turn.next, FrameNext::Blocked(_)) {
            return Err(StorageError::Misuse {
                what: format!(
                    "the blocked turn of frame {} delivers, makes or drops; only its log lines are written",
                    turn.frame
                ),
            });
        }
    }
    Ok(())
}

/// What a fence says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Apply,
    Already,
}

struct Batch<'a> {
    turns: &'a [TurnCommit],
    locked: Locked,
    passes: Vec<Result<Pass, CommitRefused>>,
    hints: Vec<Hint>,
    /// Runs whose blocked rows must be looked at, and when.
    untidy: HashMap<Uuid, i64>,
    offers_work: bool,
}

impl<'a> Batch<'a> {
    fn new(turns: &'a [TurnCommit]) -> Self {
        Self {
            turns,
            locked: Locked::default(),
            passes: Vec::new(),
            hints: Vec::new(),
            untidy: HashMap::new(),
            offers_work: false,
        }
    }

    async fn run(
        mut self,
        session: &mut Session,
    ) -> Result<(Vec<Answer>, Vec<Hint>), StorageError> {
        self.lock(session).await?;
        self.passes = self.turns.iter().map(|turn| self.fence(turn)).collect();
        self.refuse_waits_for_nothing(session).await?;
        let signals = self.stored_signals(session).await?;
        let writes = self.writes(signals);
        let (mut steps, suspend_at, wake_at) = writes.steps(session);
        if steps.is_empty() {
            session.rollback().await?;
            return Ok((self.answers(&HashMap::new()), Vec::new()));
        }
        let frames = self.looked_at_again(&writes);
        let answers = if self.untidy.is_empty() {
            let at = steps.len();
            if !frames.is_empty() {
                steps.push(session.step(STATUSES, vec![uuids(&frames)]));
            }
            let mut answers = session.commit(steps).await?;
            let looks = answers.split_off(at);
            (answers, looks)
        } else {
            let answers = session.pipeline(steps).await?;
            self.hints.extend(tidy(session, &self.untidy).await?);
            let look = session.step(STATUSES, vec![uuids(&frames)]);
            (answers, session.commit(vec![look]).await?)
        };
        let (answers, looks) = answers;
        let suspended = suspend_at.map(|at| &answers[at]);
        let waiting = writes.waiting.ids.iter();
        let mut statuses: HashMap<Uuid, StackStatus> = waiting
            .map(|id| (*id, StackStatus::SuspendedWaitingChild))
            .collect();
        for row in suspended.into_iter().chain(&looks).flatten() {
            let status: StackStatus = get::<&str>(row, 1)?.parse()?;
            self.offers_work |= status == StackStatus::PendingResume;
            statuses.insert(get(row, 0)?, status);
        }
        self.offers_work |= wake_at.is_some_and(|at| !answers[at].is_empty());
        if self.offers_work {
            self.hints.push(Hint::Work);
        }
        let hints = std::mem::take(&mut self.hints);
        Ok((self.answers(&statuses), hints))
    }

    /// The frames, if another turn of the batch may have changed their status after their own had its say.
    fn looked_at_again(&self, writes: &Writes<'_>) -> Vec<Uuid> {
        let may_differ = !self.untidy.is_empty()
            || self.passes.contains(&Ok(Pass::Already))
            || !writes.dropped.0.is_empty()
            || !writes.cancelled_runs.0.is_empty();
        if may_differ {
            self.turns.iter().map(|turn| turn.frame.as_uuid()).collect()
        } else {
            Vec::new()
        }
    }

    async fn lock(&mut self, session: &mut Session) -> Result<(), StorageError> {
        let mut runs: [Vec<Uuid>; 3] = Default::default();
        let mut workers = Vec::new();
        let mut rows = Vec::new();
        let mut ending = Vec::new();
        let mut left = Vec::new();
        for turn in self.turns {
            runs[strength(turn)].push(turn.task_run.as_uuid());
            workers.push(turn.lease.worker.as_uuid());
            rows.push(turn.frame.as_uuid());
            rows.extend(
                turn.delivered
                    .iter()
                    .map(|delivery| delivery.child.as_uuid()),
            );
            rows.extend(turn.dropped.iter().map(tasker_adaptor::StackRunId::as_uuid));
            left.extend(turn.dropped.iter().map(tasker_adaptor::StackRunId::as_uuid));
            if !matches!(turn.next, FrameNext::Suspended) {
                ending.push(turn.frame.as_uuid());
                left.push(turn.frame.as_uuid());
            }
        }
        let mut steps = Vec::new();
        for (ids, sql) in runs
            .iter()
            .zip([locks::RUNS_SHARED, locks::RUNS, locks::RUNS_WHOLE])
            .rev()
        {
            if !ids.is_empty() {
                steps.push(session.step(sql, vec![uuids(ids)]));
            }
        }
        let of_runs = steps.len();
        steps.push(session.step(locks::WORKERS, vec![uuids(&workers)]));
        steps.push(session.step(
            locks::ROWS,
            vec![uuids(&rows), uuids(&ending), uuids(&left)],
        ));
        let answers = session.begin(steps).await?;
        for rows in &answers[..of_runs] {
            self.locked.add_runs(rows)?;
        }
        self.locked.add_workers(&answers[of_runs])?;
        self.locked.add_rows(&answers[of_runs + 1])
    }

    /// The rules for a turn, but for what it waits for.
    fn fence(&self, turn: &TurnCommit) -> Result<Pass, CommitRefused> {
        if !self.locked.is_live(turn.lease.worker) {
            return Err(CommitRefused::LeaseLost);
        }
        let frame = self
            .locked
            .rows
            .get(&turn.frame.as_uuid())
            .ok_or(CommitRefused::Gone)?;
        if is_applied(frame, turn) {
            return Ok(Pass::Already);
        }
        self.locked.refuse_ended(frame)?;
        if frame.turn != turn.turn.0 as i32 {
            return Err(CommitRefused::Superseded);
        }
        frame.refuse_other_owner(turn.lease)?;
        let mut seen = HashSet::new();
        for delivery in &turn.delivered {
            let child = self.locked.rows.get(&delivery.child.as_uuid());
            let fits = child.is_some_and(|child| fits(child, delivery, turn))
                && seen.insert(delivery.child);
            if !fits {
                return Err(CommitRefused::Stale { seq: delivery.seq });
            }
        }
        Ok(Pass::Apply)
    }

    /// Refuses turns that suspend although nothing could ever wake their frame.
    async fn refuse_waits_for_nothing(
        &mut self,
        session: &mut Session,
    ) -> Result<(), StorageError> {
        let mut frames = Vec::new();
        let mut consumed = Vec::new();
        for (turn, pass) in self.turns.iter().zip(&self.passes) {
            let makes = turn.made.iter().any(|new| !turn.dropped.contains(&new.id));
            if *pass != Ok(Pass::Apply) || !matches!(turn.next, FrameNext::Suspended) || makes {
                continue;
            }
            frames.push(turn.frame.as_uuid());
            consumed.extend(
                turn.delivered
                    .iter()
                    .map(|delivery| delivery.child.as_uuid()),
            );
            consumed.extend(
                turn.dropped
                    .iter()
                    .map(tasker_adaptor::StackRunId::as_uuid)
                    .filter(|id| self.drops(turn, *id)),
            );
        }
        if frames.is_empty() {
            return Ok(());
        }
        let found = session
            .query(HAS_MORE, &[uuids(&frames), uuids(&consumed)])
            .await?;
        let has_more: HashSet<Uuid> = found
            .iter()
            .map(|row| get(row, 0))
            .collect::<Result<_, _>>()?;
        for (turn, pass) in self.turns.iter().zip(&mut self.passes) {
            let frame = turn.frame.as_uuid();
            if frames.contains(&frame) && !has_more.contains(&frame) {
                *pass = Err(CommitRefused::SuspendedOnNothing);
            }
        }
        Ok(())
    }

    /// Whether the turn gives up this row: a child of its frame that is still open.
    fn drops(&self, turn: &TurnCommit, id: Uuid) -> bool {
        self.locked.rows.get(&id).is_some_and(|row| {
            row.parent == Some(turn.frame.as_uuid()) && !row.status.is_terminal()
        })
    }

    /// Stored signals of runs in which a turn makes a signal wait, oldest first.
    async fn stored_signals(&self, session: &mut Session) -> Result<Vec<Stored>, StorageError> {
        let runs: Vec<Uuid> = self
            .applied()
            .filter(|turn| makes_wait(turn))
            .map(|turn| turn.task_run.as_uuid())
            .collect();
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let found = session.query(STORED_SIGNALS, &[uuids(&runs)]).await?;
        found
            .iter()
            .map(|row| {
                Ok(Stored {
                    id: get(row, 0)?,
                    run: get(row, 1)?,
                    name: text::from_column(get(row, 2)?),
                    payload: get(row, 3)?,
                })
            })
            .collect()
    }

    fn applied(&self) -> impl Iterator<Item = &'a TurnCommit> {
        self.turns
            .iter()
            .zip(&self.passes)
            .filter(|(_, pass)| **pass == Ok(Pass::Apply))
            .map(|(turn, _)| turn)
    }

    fn writes(&mut self, mut signals: Vec<Stored>) -> Writes<'a> {
        let mut writes = Writes::default();
        let applied: Vec<&'a TurnCommit> = self.applied().collect();
        for turn in applied {
            self.write_turn(turn, &mut signals, &mut writes);
        }
        self.offers_work |= writes.made.offers_work();
        writes
    }

    fn write_turn(
        &mut self,
        turn: &'a TurnCommit,
        signals: &mut Vec<Stored>,
        writes: &mut Writes<'a>,
    ) {
        let (id, run, time) = (
            turn.frame.as_uuid(),
            turn.task_run.as_uuid(),
            turn.time.as_millis(),
        );
        let Some(frame) = self.locked.rows.get(&id).cloned() else {
            return;
        };
        for line in &turn.logs {
            writes.logs.push(run, Some(id), time, line);
        }
        let mut delivered_count = frame.delivered_count;
        for delivery in &turn.delivered {
            delivered_count += 1;
            let settles = self
                .locked
                .rows
                .get(&delivery.child.as_uuid())
                .is_some_and(|child| !child.status.is_terminal());
            let outcome = match &delivery.source {
                DeliverySource::Local { outcome, .. } => outcome,
                DeliverySource::Recorded | DeliverySource::Timer => &Outcome::Completed(None),
            };
            let d = &mut writes.deliveries;
            d.ids.push(delivery.child.as_uuid());
            d.statuses.push(settles.then(|| outcome.status().as_str()));
            d.outcomes.push(settles.then(|| outcome.to_column()));
            d.places.push(delivered_count);
            d.turns.push(turn.turn.0 as i32);
            d.times.push(time);
        }
        let (mut made_count, mut open) = (frame.made_count, 0);
        for new in &turn.made {
            made_count += 1;
            let birth = if turn.dropped.contains(&new.id) {
                Birth::Dropped
            } else {
                meet(signals, &new.kind, run).map_or(Birth::Open, |signal| {
                    writes.consumed.0.push(signal.id);
                    writes.consumed.1.push(new.id.as_uuid());
                    Birth::Met(signal.payload)
                })
            };
            open += i32::from(matches!(birth, Birth::Open));
            writes.made.push(turn, &frame, made_count, new, birth);
        }
        let consumed: HashSet<_> = turn
            .delivered
            .iter()
            .map(|delivery| delivery.child)
            .collect();
        for dropped in turn.dropped.iter().filter(|id| !consumed.contains(id)) {
            if self.drops(turn, dropped.as_uuid()) {
                writes.dropped.0.push(dropped.as_uuid());
                writes.dropped.1.push(time);
                writes.left.0.push(dropped.as_uuid());
                writes.left.1.push(time);
                writes.let_go.push(dropped.as_uuid());
                self.untidy_if_blocked(run, time);
            }
        }
        let counts = Counts {
            made: made_count,
            delivered: delivered_count,
            open,
        };
        self.move_frame(turn, &frame, &counts, writes);
    }

    /// The frame's next status.
    fn move_frame(
        &mut self,
        turn: &'a TurnCommit,
        frame: &LockedRow,
        counts: &Counts,
        writes: &mut Writes<'a>,
    ) {
        let (run, time) = (frame.run, turn.time.as_millis());
        let frames = match turn.next {
            FrameNext::Suspended if counts.made - counts.delivered == counts.open => {
                &mut writes.waiting
            }
            FrameNext::Suspended => &mut writes.suspended,
            _ => &mut writes.ended,
        };
        let is_blocked = matches!(turn.next, FrameNext::Blocked(_));
        frames.ids.push(frame.id);
        frames.turns.push(if is_blocked {
            frame.turn
        } else {
            frame.turn + 1
        });
        frames.mades.push(counts.made);
        frames.delivereds.push(counts.delivered);
        frames.times.push(time);
        if !matches!(turn.next, FrameNext::Suspended) && counts.made > counts.delivered {
            writes.let_go.push(frame.id);
        }
        let end = match &turn.next {
            FrameNext::Suspended => return,
            FrameNext::Blocked(reason) => {
                frames.statuses.push(StackStatus::Blocked.as_str());
                frames.outcomes.push(None);
                // A reason is plain data; should it ever fail to serialise, the text still says that there is one.
                frames
                    .reasons
                    .push(Some(serde_json::to_string(reason).unwrap_or_default()));
                self.untidy.insert(run, time);
                return;
            }
            FrameNext::Completed(value) => End::With(Outcome::Completed(value.clone())),
            FrameNext::Failed(failure) => End::With(Outcome::Failed(failure.clone())),
            FrameNext::Cancelled if frame.parent.is_none() => End::Cancelled,
            FrameNext::Cancelled => End::With(Outcome::Failed(Failure::cancelled())),
        };
        let (status, run_status, outcome) = match &end {
            End::With(outcome @ Outcome::Completed(_)) => (
                StackStatus::Completed,
                RunStatus::Completed,
                Some(outcome.to_column()),
            ),
            End::With(outcome) => (
                StackStatus::Failed,
                RunStatus::Failed,
                Some(outcome.to_column()),
            ),
            End::Cancelled => (StackStatus::Cancelled, RunStatus::Cancelled, None),
        };
        frames.statuses.push(status.as_str());
        frames.outcomes.push(outcome.clone());
        frames.reasons.push(None);
        writes.left.0.push(frame.id);
        writes.left.1.push(time);
        self.untidy_if_blocked(run, time);
        if let Some(parent) = frame.parent {
            writes.woken.0.push(parent);
            writes.woken.1.push(time);
            return;
        }
        writes.runs.ids.push(run);
        writes.runs.statuses.push(run_status.as_str());
        writes.runs.outcomes.push(outcome);
        writes.runs.times.push(time);
        if run_status == RunStatus::Cancelled {
            writes.cancelled_runs.0.push(run);
            writes.cancelled_runs.1.push(time);
        }
        self.hints.push(Hint::Ended(turn.task_run));
    }

    fn untidy_if_blocked(&mut self, run: Uuid, time: i64) {
        if self.locked.runs.get(&run) == Some(&RunStatus::Blocked) {
            self.untidy.insert(run, time);
        }
    }

    fn answers(&self, moved: &HashMap<Uuid, StackStatus>) -> Vec<Answer> {
        let receipt = |(turn, pass): (&TurnCommit, &Result<Pass, CommitRefused>)| {
            let already_applied = (*pass)? == Pass::Already;
            let id = turn.frame.as_uuid();
            let before = self
                .locked
                .rows
                .get(&id)
                .map_or(StackStatus::Processing, |row| row.status);
            if let Some(status) = moved.get(&id) {
                return Ok(TurnReceipt {
                    already_applied,
                    status: *status,
                });
            }
            let status = match &turn.next {
                FrameNext::Suspended => before,
                _ if already_applied => before,
                FrameNext::Completed(_) => StackStatus::Completed,
                FrameNext::Failed(_) => StackStatus::Failed,
                FrameNext::Blocked(_) => StackStatus::Blocked,
                FrameNext::Cancelled => {
                    match self.locked.rows.get(&id).and_then(|row| row.parent) {
                        Some(_) => StackStatus::Failed,
                        None => StackStatus::Cancelled,
                    }
                }
            };
            Ok(TurnReceipt {
                already_applied,
                status,
            })
        };
        self.turns.iter().zip(&self.passes).map(receipt).collect()
    }
}

/// The children of a frame after a turn.
struct Counts {
    made: i32,
    delivered: i32,
    /// Made by this turn and neither settled nor given up by it.
    open: i32,
}

enum End {
    With(Outcome),
    Cancelled,
}

struct Stored {
    id: Uuid,
    run: Uuid,
    name: String,
    payload: String,
}

/// Takes the oldest stored signal that the made wait waits for.
fn meet(signals: &mut Vec<Stored>, kind: &MadeKind, run: Uuid) -> Option<Stored> {
    let MadeKind::Signal { name } = kind else {
        return None;
    };
    let at = signals
        .iter()
        .position(|stored| stored.run == run && stored.name == *name)?;
    Some(signals.remove(at))
}

fn makes_wait(turn: &TurnCommit) -> bool {
    turn.made
        .iter()
        .any(|new| matches!(new.kind, MadeKind::Signal { .. }))
}

/// How strongly a turn locks its run: 0 shared, 1 as its only writer, 2 against everybody.
fn strength(turn: &TurnCommit) -> usize {
    match turn.next {
        FrameNext::Cancelled => 2,
        FrameNext::Suspended if turn.logs.is_empty() && !makes_wait(turn) => 0,
        _ => 1,
    }
}

/// The row shows that this very turn was committed.
fn is_applied(frame: &LockedRow, turn: &TurnCommit) -> bool {
    if frame.epoch != turn.lease.epoch.0 as i32 {
        return false;
    }
    let turns = turn.turn.0 as i32;
    match turn.next {
        FrameNext::Blocked(_) => {
            frame.turn == turns
                && (frame.status == StackStatus::Blocked || frame.status.is_terminal())
        }
        _ => frame.turn == turns + 1,
    }
}

fn fits(child: &LockedRow, delivery: &Delivery, turn: &TurnCommit) -> bool {
    let is_child = child.parent == Some(turn.frame.as_uuid())
        && child.seq == delivery.seq.0 as i32
        && child.delivered_order.is_none();
    is_child
        && match &delivery.source {
            DeliverySource::Local { epoch, .. } => {
                child.kind == StackKind::Call
                    && child.epoch == epoch.0 as i32
                    && (child.status.is_settled()
                        || (child.status == StackStatus::Processing
                            && child.owner == Some(turn.lease.worker.as_uuid())))
            }
            DeliverySource::Recorded => child.status.is_settled(),
            DeliverySource::Timer => {
                child.kind == StackKind::Timer
                    && (child.status == StackStatus::Pending || child.status.is_settled())
            }
        }
}
