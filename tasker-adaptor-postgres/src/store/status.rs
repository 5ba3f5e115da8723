//! Statements about statuses that several operations share.
//!
//! Each is sent after the statement that locks, so that it sees what was committed before the lock was given.

/// The frame `s` has a settled child that it has not been told of. A scalar subquery, which is answered frame by frame:
/// `EXISTS` may be planned as a hash of all unread children of all frames.
macro_rules! has_unread {
    () => {
        "coalesce((SELECT true FROM tasker.stack_runs c WHERE c.parent_id = s.id AND c.mark = 'unread' LIMIT 1), false)"
    };
}
pub(super) use has_unread;

/// The status of a frame `s` whose VM nobody holds.
macro_rules! status_from_children {
    () => {
        concat!(
            "CASE WHEN s.turn = 0 THEN 'pending' WHEN ",
            $crate::store::status::has_unread!(),
            " THEN 'pending_resume' ELSE 'suspended_waiting_child' END"
        )
    };
}
pub(super) use status_from_children;

/// Suspended frames ($1, at the times $2) that have an unread child go on. The last statement of an operation.
pub(super) const WAKE: &str = concat!(
    "UPDATE tasker.stack_runs s SET status = 'pending_resume', ready_at = u.time FROM unnest($1::uuid[], $2::int8[]) AS u(id, time) WHERE s.id = u.id AND s.status = 'suspended_waiting_child' AND ",
    has_unread!(),
    " RETURNING s.id"
);

/// Frames $1 have another owner now, or none: who asks their calls is said by the calls. After the statement that lets them go;
/// whoever else writes such a call holds its frame.
pub(super) const LET_GO: &str = "UPDATE tasker.stack_runs s SET with_frame = false FROM tasker.stack_runs f WHERE f.id = ANY ($1) AND s.task_run_id = f.task_run_id AND s.parent_id = f.id AND s.with_frame AND s.owner IS NOT NULL";

/// Runs of the root frames among $1 say what their root does, unless they are blocked or ended. `num_nulls`, and not `IS NULL`:
/// for that a plan that was made on small tables would walk the index of all roots.
pub(super) const FOLLOW_ROOTS: &str = "UPDATE tasker.task_runs r SET status = CASE WHEN f.owner IS NOT NULL THEN 'processing' WHEN f.turn > 0 THEN 'suspended' ELSE 'queued' END FROM tasker.stack_runs f WHERE f.id = ANY ($1) AND num_nulls(f.parent_id) = 1 AND r.id = f.task_run_id AND r.status IN ('queued', 'processing', 'suspended')";

/// Open rows $1 end without a result, at the times $2.
pub(super) const CANCEL_ROWS: &str = "UPDATE tasker.stack_runs s SET status = 'cancelled', owner = NULL, blocked_reason = NULL, epoch = s.epoch + 1, settled_at = u.time FROM unnest($1::uuid[], $2::int8[]) AS u(id, time) WHERE s.id = u.id AND s.status NOT IN ('completed', 'failed', 'cancelled')";

/// Timers and signal waits of the frames $1 end, at the times $2: nobody waits for them.
pub(super) const CANCEL_SLEEPERS: &str = "UPDATE tasker.stack_runs s SET status = 'cancelled', epoch = s.epoch + 1, settled_at = u.time FROM unnest($1::uuid[], $2::int8[]) AS u(id, time) WHERE s.parent_id = u.id AND s.mark = 'asleep'";

/// All open rows of the runs $1 end, at the times $2.
pub(super) const CANCEL_RUN_ROWS: &str = "UPDATE tasker.stack_runs s SET status = 'cancelled', owner = NULL, blocked_reason = NULL, epoch = s.epoch + 1, settled_at = u.time FROM unnest($1::uuid[], $2::int8[]) AS u(id, time) WHERE s.task_run_id = u.id AND s.status NOT IN ('completed', 'failed', 'cancelled')";

/// Rows $1 settle as $2 with $3, at the times $4; the epoch stays, and recognises a repeated request.
pub(super) const SETTLE: &str = "UPDATE tasker.stack_runs s SET status = u.status, outcome = u.outcome, owner = NULL, blocked_reason = NULL, settled_at = u.time FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int8[]) AS u(id, status, outcome, time) WHERE s.id = u.id";

/// Runs $1 end as $2 with $3, at the times $4.
pub(super) const END_RUNS: &str = "UPDATE tasker.task_runs r SET status = u.status, outcome = u.outcome, blocked_reason = NULL, ended_at = u.time FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int8[]) AS u(id, status, outcome, time) WHERE r.id = u.id AND r.ended_at IS NULL";
