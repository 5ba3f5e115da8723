//! What a batch of turns writes, gathered into arrays: one statement each, however many turns there are.

use std::borrow::Cow;
use std::collections::HashMap;

use tasker_adaptor::{Json, MadeKind, NewStackRun, StackStatus, TurnCommit};
use uuid::Uuid;

use super::locks::LockedRow;
use super::status::{
    CANCEL_ROWS, CANCEL_RUN_ROWS, CANCEL_SLEEPERS, END_RUNS, LET_GO, WAKE, has_unread,
};
use crate::session::{Session, Step, bools, int, ints, longs, texts, uuid, uuids};
use crate::text;

const DELIVER: &str = "UPDATE tasker.stack_runs s SET status = coalesce(u.status, s.status), outcome = CASE WHEN u.status IS NULL THEN s.outcome ELSE u.outcome END, owner = NULL, delivered_order = u.place, delivered_turn = u.turn, delivered_at = u.time, settled_at = CASE WHEN u.status IS NULL THEN s.settled_at ELSE u.time END FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int4[], $5::int4[], $6::int8[]) AS u(id, status, outcome, place, turn, time) WHERE s.id = u.id";

const MAKE: &str = "INSERT INTO tasker.stack_runs (id, task_run_id, parent_id, kind, seq, depth, status, owner, epoch, attempt, due_at, ready_at, priority, service, path, args, version, outcome, created_at, started_at, settled_at, policy, with_frame) SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::int4[], $6::int4[], $7::text[], $8::uuid[], $9::int4[], $10::int4[], $11::int8[], $12::int8[], $13::int4[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[], $19::int8[], $20::int8[], $21::int8[], $22::text[], $23::bool[])";

/// What a batch makes nearly always: calls that their frame's owner ($1) asks at once, at one depth ($2) and priority ($3). Each array
/// that is unnested costs the server time in every row.
const MAKE_CALLS: &str = "INSERT INTO tasker.stack_runs (id, task_run_id, parent_id, kind, seq, depth, status, owner, epoch, attempt, ready_at, priority, service, path, args, created_at, started_at, policy, with_frame) SELECT u.id, u.run, u.parent, 'call', u.seq, $2, 'processing', $1, 1, 1, u.time, $3, u.service, u.path, u.args, u.time, u.time, u.policy, true FROM unnest($4::uuid[], $5::uuid[], $6::uuid[], $7::int4[], $8::text[], $9::text[], $10::text[], $11::int8[], $12::text[]) AS u(id, run, parent, seq, service, path, args, time, policy)";

const CONSUME: &str = "UPDATE tasker.signals g SET consumed_by = u.wait FROM unnest($1::uuid[], $2::uuid[]) AS u(id, wait) WHERE g.id = u.id";

/// The place of a line is the end of its run's log, under the lock of the run: a line committed later lies behind it.
pub(super) const LOG: &str = "INSERT INTO tasker.log_lines (task_run_id, cursor, frame_id, time, level, message, data) SELECT u.run, coalesce((SELECT max(l.cursor) FROM tasker.log_lines l WHERE l.task_run_id = u.run), 0) + u.place, u.frame, u.time, u.level, u.message, u.data FROM unnest($1::uuid[], $2::int8[], $3::uuid[], $4::int8[], $5::text[], $6::text[], $7::text[]) AS u(run, place, frame, time, level, message, data)";

const END_FRAMES: &str = "UPDATE tasker.stack_runs s SET status = u.status, outcome = u.outcome, blocked_reason = u.reason, owner = NULL, turn = u.turn, made_count = u.made, delivered_count = u.delivered, attempt = CASE WHEN u.reason IS NULL THEN 0 ELSE s.attempt END, in_doubt = u.reason IS NOT NULL AND s.in_doubt, started_at = CASE WHEN u.reason IS NULL THEN coalesce(s.started_at, u.time) ELSE s.started_at END, settled_at = CASE WHEN u.reason IS NULL THEN u.time END FROM unnest($1::uuid[], $2::int4[], $3::int4[], $4::int4[], $5::int8[], $6::text[], $7::text[], $8::text[]) AS u(id, turn, made, delivered, time, status, outcome, reason) WHERE s.id = u.id";

const SUSPEND: &str = concat!(
    "UPDATE tasker.stack_runs s SET status = CASE WHEN ",
    has_unread!(),
    " THEN 'pending_resume' ELSE 'suspended_waiting_child' END, ready_at = u.time, turn = u.turn, made_count = u.made, delivered_count = u.delivered, attempt = 0, in_doubt = false, started_at = coalesce(s.started_at, u.time) FROM unnest($1::uuid[], $2::int4[], $3::int4[], $4::int4[], $5::int8[]) AS u(id, turn, made, delivered, time) WHERE s.id = u.id RETURNING s.id, s.status"
);

/// Frames whose children are told but for those that this very turn made and left open: there is nothing to look for.
const WAIT: &str = "UPDATE tasker.stack_runs s SET status = 'suspended_waiting_child', ready_at = u.time, turn = u.turn, made_count = u.made, delivered_count = u.delivered, attempt = 0, in_doubt = false, started_at = coalesce(s.started_at, u.time) FROM unnest($1::uuid[], $2::int4[], $3::int4[], $4::int4[], $5::int8[]) AS u(id, turn, made, delivered, time) WHERE s.id = u.id";

/// All writes of a batch.
#[derive(Default)]
pub(super) struct Writes<'a> {
    pub(super) deliveries: Deliveries,
    pub(super) made: Made<'a>,
    pub(super) consumed: (Vec<Uuid>, Vec<Uuid>),
    pub(super) dropped: (Vec<Uuid>, Vec<i64>),
    pub(super) logs: Lines<'a>,
    pub(super) ended: Frames,
    /// May have a settled child already.
    pub(super) suspended: Frames,
    /// Can have none.
    pub(super) waiting: Frames,
    /// Frames that ended or were given up: nobody waits for their timers and signal waits.
    pub(super) left: (Vec<Uuid>, Vec<i64>),
    /// Frames without an owner that may have calls under way.
    pub(super) let_go: Vec<Uuid>,
    pub(super) runs: EndedRuns,
    pub(super) woken: (Vec<Uuid>, Vec<i64>),
    pub(super) cancelled_runs: (Vec<Uuid>, Vec<i64>),
}

#[derive(Default)]
pub(super) struct Deliveries {
    pub(super) ids: Vec<Uuid>,
    pub(super) statuses: Vec<Option<&'static str>>,
    pub(super) outcomes: Vec<Option<String>>,
    pub(super) places: Vec<i32>,
    pub(super) turns: Vec<i32>,
    pub(super) times: Vec<i64>,
}

#[derive(Default)]
pub(super) struct Made<'a> {
    calls: Calls<'a>,
    /// The rest.
    ids: Vec<Uuid>,
    runs: Vec<Uuid>,
    parents: Vec<Uuid>,
    kinds: Vec<&'static str>,
    seqs: Vec<i32>,
    depths: Vec<i32>,
    statuses: Vec<&'static str>,
    owners: Vec<Option<Uuid>>,
    epochs: Vec<i32>,
    attempts: Vec<i32>,
    dues: Vec<Option<i64>>,
    readies: Vec<i64>,
    priorities: Vec<i32>,
    services: Vec<Cow<'a, str>>,
    paths: Vec<Cow<'a, str>>,
    args: Vec<Option<&'a str>>,
    versions: Vec<Option<&'a str>>,
    outcomes: Vec<Option<String>>,
    createds: Vec<i64>,
    starteds: Vec<Option<i64>>,
    settleds: Vec<Option<i64>>,
    policies: Vec<Option<&'a str>>,
    with_frames: Vec<bool>,
}

/// Calls that their frame's owner asks at once.
#[derive(Default)]
struct Calls<'a> {
    /// Worker, depth and priority of all of them.
    alike: Option<(Uuid, i32, i32)>,
    ids: Vec<Uuid>,
    runs: Vec<Uuid>,
    parents: Vec<Uuid>,
    seqs: Vec<i32>,
    services: Vec<Cow<'a, str>>,
    paths: Vec<Cow<'a, str>>,
    args: Vec<&'a str>,
    times: Vec<i64>,
    policies: Vec<Option<&'a str>>,
}

impl<'a> Calls<'a> {
    /// Whether it is such a call, and is taken.
    fn push(
        &mut self,
        turn: &TurnCommit,
        frame: &LockedRow,
        seq: i32,
        new: &'a NewStackRun,
    ) -> bool {
        let MadeKind::Call {
            service,
            path,
            args,
            policy,
        } = &new.kind
        else {
            return false;
        };
        let own = (turn.lease.worker.as_uuid(), frame.depth, frame.priority);
        if !new.claimed || *self.alike.get_or_insert(own) != own {
            return false;
        }
        self.ids.push(new.id.as_uuid());
        self.runs.push(turn.task_run.as_uuid());
        self.parents.push(turn.frame.as_uuid());
        self.seqs.push(seq);
        self.services.push(text::to_column(service));
        self.paths.push(text::to_column(path));
        self.args.push(args.text());
        self.times.push(turn.time.as_millis());
        self.policies.push(policy.as_ref().map(Json::text));
        true
    }

    fn step(&self, session: &Session) -> Option<Step<'_>> {
        let (worker, depth, priority) = self.alike.as_ref()?;
        Some(session.step(
            MAKE_CALLS,
            vec![
                uuid(worker),
                int(depth),
                int(priority),
                uuids(&self.ids),
                uuids(&self.runs),
                uuids(&self.parents),
                ints(&self.seqs),
                texts(&self.services),
                texts(&self.paths),
                texts(&self.args),
                longs(&self.times),
                texts(&self.policies),
            ],
        ))
    }
}

/// What becomes of a made row in the very turn that made it.
pub(super) enum Birth {
    /// As the turn says.
    Open,
    /// Given up again.
    Dropped,
    /// A signal wait whose signal had come.
    Met(String),
}

impl<'a> Made<'a> {
    pub(super) fn push(
        &mut self,
        turn: &TurnCommit,
        frame: &LockedRow,
        seq: i32,
        new: &'a NewStackRun,
        birth: Birth,
    ) {
        if matches!(birth, Birth::Open) && self.calls.push(turn, frame, seq, new) {
            return;
        }
        let time = turn.time.as_millis();
        let claimed =
            new.claimed && matches!(new.kind, MadeKind::Call { .. } | MadeKind::Frame { .. });
        let (kind, service, path, args): (_, Cow<'a, str>, Cow<'a, str>, _) = match &new.kind {
            MadeKind::Call {
                service,
                path,
                args,
                ..
            } => (
                "call",
                text::to_column(service),
                text::to_column(path),
                Some(args.text()),
            ),
            MadeKind::Frame { task, input, .. } => (
                "frame",
                "tasks".into(),
                text::to_column(task.as_str()),
                Some(input.text()),
            ),
            MadeKind::Timer { path, args, .. } => (
                "timer",
                "timer".into(),
                text::to_column(path),
                Some(args.text()),
            ),
            MadeKind::Signal { name } => ("signal", "signal".into(), text::to_column(name), None),
        };
        let (depth, version, due) = match &new.kind {
            MadeKind::Frame { depth, version, .. } => (*depth as i32, Some(version.as_str()), None),
            MadeKind::Timer { due_at, .. } => (frame.depth, None, Some(due_at.as_millis())),
            _ => (frame.depth, None, None),
        };
        let born = if claimed {
            StackStatus::Processing
        } else {
            StackStatus::Pending
        };
        let owner = claimed.then(|| turn.lease.worker.as_uuid());
        let (status, owner, epoch, outcome, settled) = match birth {
            Birth::Open => (born, owner, i32::from(claimed), None, None),
            Birth::Dropped => (
                StackStatus::Cancelled,
                None,
                i32::from(claimed) + 1,
                None,
                Some(time),
            ),
            Birth::Met(payload) => (StackStatus::Completed, None, 0, Some(payload), Some(time)),
        };
        self.with_frames.push(owner.is_some() && kind == "call");
        self.ids.push(new.id.as_uuid());
        self.runs.push(turn.task_run.as_uuid());
        self.parents.push(turn.frame.as_uuid());
        self.kinds.push(kind);
        self.seqs.push(seq);
        self.depths.push(depth);
        self.statuses.push(status.as_str());
        self.owners.push(owner);
        self.epochs.push(epoch);
        self.attempts.push(i32::from(claimed && kind == "call"));
        self.dues.push(due);
        self.readies.push(due.map_or(time, |due| due.max(time)));
        self.priorities.push(frame.priority);
        self.services.push(service);
        self.paths.push(path);
        self.args.push(args);
        self.versions.push(version);
        self.outcomes.push(outcome);
        self.createds.push(time);
        self.starteds
            .push((claimed && kind == "call").then_some(time));
        self.settleds.push(settled);
        self.policies.push(match &new.kind {
            MadeKind::Call { policy, .. } => policy.as_ref().map(Json::text),
            _ => None,
        });
    }

    /// Whether somebody else may claim one of them.
    pub(super) fn offers_work(&self) -> bool {
        self.statuses
            .iter()
            .zip(&self.kinds)
            .any(|(status, kind)| *status == "pending" && matches!(*kind, "call" | "frame"))
    }
}

#[derive(Default)]
pub(super) struct Lines<'a> {
    counts: HashMap<Uuid, i64>,
    runs: Vec<Uuid>,
    /// From 1 within the run and the batch.
    places: Vec<i64>,
    frames: Vec<Option<Uuid>>,
    times: Vec<i64>,
    levels: Vec<&'static str>,
    messages: Vec<Cow<'a, str>>,
    datas: Vec<Option<&'a str>>,
}

impl<'a> Lines<'a> {
    pub(super) fn push(
        &mut self,
        run: Uuid,
        frame: Option<Uuid>,
        time: i64,
        line: &'a tasker_adaptor::LogLine,
    ) {
        let place = self.counts.entry(run).or_default();
        *place += 1;
        self.runs.push(run);
        self.places.push(*place);
        self.frames.push(frame);
        self.times.push(time);
        self.levels.push(line.level.as_str());
        self.messages.push(text::to_column(&line.message));
        self.datas
            .push(line.data.as_ref().map(tasker_adaptor::Json::text));
    }

    pub(super) fn step(&self, session: &Session) -> Step<'_> {
        session.step(
            LOG,
            vec![
                uuids(&self.runs),
                longs(&self.places),
                uuids(&self.frames),
                longs(&self.times),
                texts(&self.levels),
                texts(&self.messages),
                texts(&self.datas),
            ],
        )
    }
}

#[derive(Default)]
pub(super) struct Frames {
    pub(super) ids: Vec<Uuid>,
    pub(super) turns: Vec<i32>,
    pub(super) mades: Vec<i32>,
    pub(super) delivereds: Vec<i32>,
    pub(super) times: Vec<i64>,
    /// Of ended and blocked frames only.
    pub(super) statuses: Vec<&'static str>,
    pub(super) outcomes: Vec<Option<String>>,
    pub(super) reasons: Vec<Option<String>>,
}

#[derive(Default)]
pub(super) struct EndedRuns {
    pub(super) ids: Vec<Uuid>,
    pub(super) statuses: Vec<&'static str>,
    pub(super) outcomes: Vec<Option<String>>,
    pub(super) times: Vec<i64>,
}

impl Writes<'_> {
    /// The statements, in the order of PROTOCOL a3.7: settlements and inserts, next statuses, one wake.
    /// Also says at which place the answers of `SUSPEND` and `WAKE` will be.
    pub(super) fn steps(&self, session: &Session) -> (Vec<Step<'_>>, Option<usize>, Option<usize>) {
        let mut steps = Vec::new();
        let d = &self.deliveries;
        if !d.ids.is_empty() {
            steps.push(session.step(
                DELIVER,
                vec![
                    uuids(&d.ids),
                    texts(&d.statuses),
                    texts(&d.outcomes),
                    ints(&d.places),
                    ints(&d.turns),
                    longs(&d.times),
                ],
            ));
        }
        steps.extend(self.made.calls.step(session));
        if !self.made.ids.is_empty() {
            steps.push(self.made.step(session));
        }
        if !self.consumed.0.is_empty() {
            steps.push(session.step(
                CONSUME,
                vec![uuids(&self.consumed.0), uuids(&self.consumed.1)],
            ));
        }
        if !self.dropped.0.is_empty() {
            steps.push(session.step(
                CANCEL_ROWS,
                vec![uuids(&self.dropped.0), longs(&self.dropped.1)],
            ));
        }
        if !self.logs.runs.is_empty() {
            steps.push(self.logs.step(session));
        }
        if !self.ended.ids.is_empty() {
            steps.push(self.ended.end_step(session));
        }
        if !self.left.0.is_empty() {
            steps.push(session.step(
                CANCEL_SLEEPERS,
                vec![uuids(&self.left.0), longs(&self.left.1)],
            ));
        }
        if !self.let_go.is_empty() {
            steps.push(session.step(LET_GO, vec![uuids(&self.let_go)]));
        }
        if !self.runs.ids.is_empty() {
            let r = &self.runs;
            steps.push(session.step(
                END_RUNS,
                vec![
                    uuids(&r.ids),
                    texts(&r.statuses),
                    texts(&r.outcomes),
                    longs(&r.times),
                ],
            ));
        }
        let mut suspend_at = None;
        if !self.suspended.ids.is_empty() {
            suspend_at = Some(steps.len());
            steps.push(self.suspended.suspend_step(session, SUSPEND));
        }
        if !self.waiting.ids.is_empty() {
            steps.push(self.waiting.suspend_step(session, WAIT));
        }
        let mut wake_at = None;
        if !self.woken.0.is_empty() {
            wake_at = Some(steps.len());
            steps.push(session.step(WAKE, vec![uuids(&self.woken.0), longs(&self.woken.1)]));
        }
        if !self.cancelled_runs.0.is_empty() {
            steps.push(session.step(
                CANCEL_RUN_ROWS,
                vec![uuids(&self.cancelled_runs.0), longs(&self.cancelled_runs.1)],
            ));
        }
        (steps, suspend_at, wake_at)
    }
}

impl Frames {
    fn suspend_step(&self, session: &Session, sql: &'static str) -> Step<'_> {
        session.step(
            sql,
            vec![
                uuids(&self.ids),
                ints(&self.turns),
                ints(&self.mades),
                ints(&self.delivereds),
                longs(&self.times),
            ],
        )
    }

    fn end_step(&self, session: &Session) -> Step<'_> {
        session.step(
            END_FRAMES,
            vec![
                uuids(&self.ids),
                ints(&self.turns),
                ints(&self.mades),
                ints(&self.delivereds),
                longs(&self.times),
                texts(&self.statuses),
                texts(&self.outcomes),
                texts(&self.reasons),
            ],
        )
    }
}

impl Made<'_> {
    fn step(&self, session: &Session) -> Step<'_> {
        session.step(
            MAKE,
            vec![
                uuids(&self.ids),
                uuids(&self.runs),
                uuids(&self.parents),
                texts(&self.kinds),
                ints(&self.seqs),
                ints(&self.depths),
                texts(&self.statuses),
                uuids(&self.owners),
                ints(&self.epochs),
                ints(&self.attempts),
                longs(&self.dues),
                longs(&self.readies),
                ints(&self.priorities),
                texts(&self.services),
                texts(&self.paths),
                texts(&self.args),
                texts(&self.versions),
                texts(&self.outcomes),
                longs(&self.createds),
                longs(&self.starteds),
                longs(&self.settleds),
                texts(&self.policies),
                bools(&self.with_frames),
            ],
        )
    }
}
