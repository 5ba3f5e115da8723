//! What is open and what is ready, counted over indexes that hold nothing that has ended.

use rusqlite::Connection;
use tasker_adaptor::{Backlog, Timestamp};

use crate::cached::Cached as _;
use crate::claim::next_priority;
use crate::fault::Outcome;

/// Counts at most `max` of each kind. What is ready is walked as a claim walks it: priority by priority, so that rows that are
/// due much later than now cost nothing.
pub(crate) fn backlog(conn: &Connection, now: Timestamp, max: usize) -> Outcome<Backlog> {
    let mut backlog = Backlog {
        at: now,
        ..Backlog::default()
    };
    for status in Backlog::statuses() {
        let count: i64 = conn
            .cached("SELECT COUNT(*) FROM (SELECT 1 FROM task_runs WHERE status = ?1 LIMIT ?2)")?
            .query_row((status.as_str(), max as i64), |row| row.get(0))?;
        backlog.runs.insert(status, count as u64);
    }
    let (frames, oldest_frame) = ready(conn, "frame", now, max)?;
    let (calls, oldest_call) = ready(conn, "call", now, max)?;
    backlog.ready_frames = frames;
    backlog.ready_calls = calls;
    backlog.oldest_ready = oldest_frame.into_iter().chain(oldest_call).min();
    Ok(backlog)
}

/// How many rows of a kind are ready, and since when the oldest of them is.
fn ready(
    conn: &Connection,
    kind: &'static str,
    now: Timestamp,
    max: usize,
) -> Outcome<(u64, Option<Timestamp>)> {
    let max = max as i64;
    let (mut count, mut oldest) = (0, None);
    let mut below = None;
    while count < max
        && let Some(priority) = next_priority(conn, kind, below)?
    {
        let (found, since): (i64, Option<i64>) = conn
            .cached(
                "SELECT COUNT(*), MIN(ready_at) FROM (SELECT ready_at FROM stack_runs WHERE kind = ?1 AND priority = ?2 AND ready_at <= ?3 \
                 ORDER BY ready_at LIMIT ?4)",
            )?
            .query_row((kind, priority, now.as_millis(), max - count), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        count += found;
        oldest = oldest.into_iter().chain(since).min();
        below = Some(priority);
    }
    Ok((count as u64, oldest.map(Timestamp::from_millis)))
}
