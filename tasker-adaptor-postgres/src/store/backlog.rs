//! What is open and what is ready, counted over indexes that hold nothing that has ended.

use tasker_adaptor::{Backlog, StorageError, Timestamp};

use super::claim::{ready_call, ready_frame};
use crate::PostgresStorage;
use crate::row::get;
use crate::session::{long, texts};

/// Open runs of each status in $1, at most $2 of one. As ranges in an order that one index alone has: by `status = …` and the
/// order of ids a planner that has seen only ended runs walks these from the newest on.
const OPEN: &str = "SELECT w.word, (SELECT count(*) FROM (SELECT t.id FROM tasker.task_runs t WHERE t.status >= w.word AND t.status <= w.word ORDER BY t.status DESC, t.id DESC LIMIT $2) c) FROM unnest($1::text[]) AS w(word)";

/// Ready rows, at most $2 whose time has come at $1: priority by priority, as a claim walks them.
macro_rules! ready {
    ($ready:ident) => {
        concat!(
            "WITH RECURSIVE steps AS ((SELECT s.priority FROM tasker.stack_runs s WHERE ",
            $ready!("s"),
            " ORDER BY s.priority DESC LIMIT 1) UNION ALL SELECT (SELECT s.priority FROM tasker.stack_runs s WHERE ",
            $ready!("s"),
            " AND s.priority < steps.priority ORDER BY s.priority DESC LIMIT 1) FROM steps WHERE steps.priority IS NOT NULL) SELECT count(*), min(c.ready) FROM (SELECT t.ready FROM (SELECT priority FROM steps WHERE priority IS NOT NULL) p CROSS JOIN LATERAL (SELECT s.ready FROM tasker.stack_runs s WHERE ",
            $ready!("s"),
            " AND s.priority = p.priority AND s.ready <= $1 ORDER BY s.ready, s.id LIMIT $2) t LIMIT $2) c"
        )
    };
}

const READY_FRAMES: &str = ready!(ready_frame);
const READY_CALLS: &str = ready!(ready_call);

/// Counts at most `max` of each kind.
pub(super) async fn backlog(
    storage: &PostgresStorage,
    now: Timestamp,
    max: usize,
) -> Result<Backlog, StorageError> {
    let mut session = storage.session().await?;
    let words: Vec<&str> = Backlog::statuses()
        .map(tasker_adaptor::RunStatus::as_str)
        .collect();
    let mut backlog = Backlog {
        at: now,
        ..Backlog::default()
    };
    let (now, max) = (now.as_millis(), max as i64);
    for row in session.query(OPEN, &[texts(&words), long(&max)]).await? {
        let word: String = get(&row, 0)?;
        let count: i64 = get(&row, 1)?;
        backlog.runs.insert(word.parse()?, count as u64);
    }
    let mut oldest = Vec::new();
    for (statement, ready) in [
        (READY_FRAMES, &mut backlog.ready_frames),
        (READY_CALLS, &mut backlog.ready_calls),
    ] {
        for row in session.query(statement, &[long(&now), long(&max)]).await? {
            let count: i64 = get(&row, 0)?;
            *ready = count as u64;
            oldest.extend(get::<Option<i64>>(&row, 1)?);
        }
    }
    backlog.oldest_ready = oldest.into_iter().min().map(Timestamp::from_millis);
    Ok(backlog)
}
