//! The invariants of [`AUDIT`] in Rust, read from the rows alone: counts and indexes are not trusted here.

use std::collections::{BTreeMap, BTreeSet};

use super::state::{RunEntry, State, is_unread};
use crate::{AUDIT, RunStatus, StackKind, StackRun, StackRunId, StackStatus, TaskRun, Violation};

/// Rows by their parent.
type Children<'a> = BTreeMap<StackRunId, Vec<&'a StackRun>>;

impl State {
    pub(super) fn audit(&self) -> Vec<Violation> {
        let mut children = Children::new();
        for row in self.rows() {
            if let Some(parent) = row.parent {
                children.entry(parent).or_default().push(row);
            }
        }
        let none = Vec::new();
        let of = |id: StackRunId| children.get(&id).unwrap_or(&none);
        let mut found = Findings::default();
        for (parent, rows) in &children {
            let folded = rows.iter().any(|row| self.is_folded(row));
            found.check("I1", parent, folded || is_gapless(rows));
        }
        for row in self.rows() {
            self.audit_row(row, of(row.id), &mut found);
        }
        for entry in self.runs.values() {
            self.audit_run(entry, &mut found);
        }
        found.sorted()
    }

    fn audit_row(&self, row: &StackRun, children: &[&StackRun], found: &mut Findings) {
        let id = &row.id;
        let unread = children.iter().any(|child| is_unread(child));
        let open = children.iter().any(|child| is_open(child));
        if row.kind == StackKind::Frame && !self.is_folded(row) {
            let delivered = children
                .iter()
                .filter(|child| child.delivered_order.is_some())
                .count();
            let agree = row.made_count as usize == children.len()
                && row.delivered_count as usize == delivered;
            found.check("I2", id, agree);
        }
        let delivered_open = row.delivered_order.is_some() && is_open(row);
        let settled_empty = row.status.is_settled() && row.outcome.is_none();
        found.check("I3", id, !delivered_open && !settled_empty);
        if row.status == StackStatus::SuspendedWaitingChild {
            found.check("I4", id, !unread);
            found.check("I5", id, open);
        }
        if matches!(
            row.status,
            StackStatus::PendingResume | StackStatus::Processing
        ) {
            found.check("I6", id, row.turn.0 == 0 || unread);
        }
        found.check("I7", id, owner_fits(row));
        found.check("I8", id, row.owner.is_none_or(|owner| self.is_live(owner)));
        let parent = row.parent.and_then(|parent| self.row(parent));
        let run = self.runs.get(&row.task_run).map(|entry| &entry.run);
        if let Some(run) = run {
            found.check("I9", id, may_be_open(row, parent, run));
            let folded = run.folded_at.is_some();
            let has_parent = row.parent.is_none() || parent.is_some();
            let broken = if folded { is_open(row) } else { !has_parent };
            found.check("I11", id, !broken);
        } else {
            found.check("I11", id, false);
        }
        if let Some(frame) = parent {
            let in_the_future = row.delivered_turn.is_some_and(|turn| turn > frame.turn);
            found.check("I14", id, frame.turn.0 > 0 && !in_the_future);
        }
    }

    fn audit_run(&self, entry: &RunEntry, found: &mut Findings) {
        let run = &entry.run;
        let ended = run.status.is_terminal();
        let rows = || entry.rows.iter().filter_map(|id| self.row(*id));
        for root in rows().filter(|row| row.parent.is_none()) {
            let ended = ended || root.status.is_terminal();
            let agree = root.status.as_str() == run.status.as_str();
            found.check("I10", &run.id, !ended || agree);
        }
        found.check("I11", &run.id, ended || rows().next().is_some());
        let has_blocked = rows().any(|row| row.status == StackStatus::Blocked);
        let says_blocked = run.status == RunStatus::Blocked;
        found.check("I12", &run.id, ended || has_blocked == says_blocked);
        let mut consumers = BTreeSet::new();
        for signal in &entry.signals {
            let beside = signal.consumed_by.is_none()
                && rows().any(|row| {
                    row.kind == StackKind::Signal
                        && row.status == StackStatus::Pending
                        && row.path == signal.name
                });
            let shares = signal
                .consumed_by
                .is_some_and(|wait| !consumers.insert(wait));
            found.check("I13", &signal.id, !beside && !shares);
        }
    }

    /// Its rows are on their way out, in batches.
    fn is_folded(&self, row: &StackRun) -> bool {
        let run = self.runs.get(&row.task_run);
        run.is_some_and(|entry| entry.run.folded_at.is_some())
    }

    fn rows(&self) -> impl Iterator<Item = &StackRun> {
        self.stack.values().map(|entry| &entry.row)
    }
}

/// What is broken, once a row and invariant.
#[derive(Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn check(&mut self, invariant: &str, id: &impl std::fmt::Display, holds: bool) {
        if holds {
            return;
        }
        if let Some(query) = AUDIT.iter().find(|query| query.name == invariant) {
            self.0.push(Violation {
                invariant: query.name,
                claim: query.claim,
                id: id.to_string(),
            });
        }
    }

    /// In the order of [`AUDIT`].
    fn sorted(self) -> Vec<Violation> {
        let mut all = self.0;
        let place = |name| AUDIT.iter().position(|query| query.name == name);
        all.sort_by(|a, b| (place(a.invariant), &a.id).cmp(&(place(b.invariant), &b.id)));
        all
    }
}

fn is_open(row: &StackRun) -> bool {
    !row.status.is_terminal()
}

fn is_gapless(rows: &[&StackRun]) -> bool {
    let seqs: BTreeSet<u32> = rows.iter().map(|row| row.seq.0).collect();
    let orders: Vec<u32> = rows.iter().filter_map(|row| row.delivered_order).collect();
    let distinct: BTreeSet<u32> = orders.iter().copied().collect();
    counts_to(&seqs, rows.len()) && counts_to(&distinct, orders.len())
}

/// `all` has as many members as `count` and the last is `count`.
fn counts_to(all: &BTreeSet<u32>, count: usize) -> bool {
    all.len() == count && all.last().map_or(0, |last| *last as usize) == count
}

fn owner_fits(row: &StackRun) -> bool {
    match row.status {
        StackStatus::Processing => row.owner.is_some(),
        StackStatus::SuspendedWaitingChild | StackStatus::PendingResume => true,
        _ => row.owner.is_none(),
    }
}

/// Only what goes on detached is open in an ended run.
fn may_be_open(row: &StackRun, parent: Option<&StackRun>, run: &TaskRun) -> bool {
    if !is_open(row) || !run.status.is_terminal() {
        return true;
    }
    let sleeps = matches!(row.kind, StackKind::Timer | StackKind::Signal);
    let forgotten = sleeps && parent.is_some_and(|parent| parent.status.is_terminal());
    run.status != RunStatus::Cancelled && row.parent.is_some() && !forgotten
}
