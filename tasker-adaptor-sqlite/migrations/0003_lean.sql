-- Rows that cost less to write. What a turn updates is in no index, and in no condition of one, that it need not change: conditions
-- name columns which only rare paths write (`waits`, `unread`, `blocked_reason`). Workers have a number, which rows name as their owner;
-- the parent of a row is named by its `no` alone. That a place in the delivery order is taken once is seen to by the counter of the
-- frame, read and written in one transaction, as on every other storage; nothing reads by that place, so it has no index.

CREATE TABLE lean_workers (
    no            INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again
    id            TEXT    NOT NULL UNIQUE,
    name          TEXT    NOT NULL,
    state         TEXT    NOT NULL CHECK (state = 'live' OR state = 'dead'),
    registered_at INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL
) STRICT;
INSERT INTO lean_workers (id, name, state, registered_at, expires_at)
    SELECT id, name, state, registered_at, expires_at FROM workers ORDER BY rowid;
-- Whoever owns a row without being known is dead: its rows are freed by the next look for the dead.
INSERT INTO lean_workers (id, name, state, registered_at, expires_at)
    SELECT DISTINCT owner, 'unknown', 'dead', 0, 0 FROM stack_runs WHERE owner IS NOT NULL AND owner NOT IN (SELECT id FROM workers);
DROP TABLE workers;
ALTER TABLE lean_workers RENAME TO workers;

CREATE TABLE lean_stack_runs (
    no              INTEGER PRIMARY KEY,    -- of this file: makes the indexes by parent a quarter of the size
    id              TEXT    NOT NULL UNIQUE,
    task_run_id     TEXT    NOT NULL,
    parent_no       INTEGER,                -- no of the frame that made it; NULL for the root frame
    kind            TEXT    NOT NULL CHECK (kind = 'call' OR kind = 'frame' OR kind = 'timer' OR kind = 'signal'),
    seq             INTEGER NOT NULL,
    depth           INTEGER NOT NULL,
    priority        INTEGER NOT NULL,       -- of the run
    status          TEXT    NOT NULL CHECK (status = 'completed' OR status = 'processing' OR status = 'suspended_waiting_child' OR status = 'pending' OR status = 'pending_resume' OR status = 'failed' OR status = 'blocked' OR status = 'cancelled'),
    owner           INTEGER,                -- no of the worker
    epoch           INTEGER NOT NULL,
    turn            INTEGER NOT NULL,
    made_count      INTEGER NOT NULL,
    delivered_count INTEGER NOT NULL,
    dropped_count   INTEGER NOT NULL,       -- children cancelled by their own frame: neither open nor ever delivered
    delivered_order INTEGER,
    delivered_turn  INTEGER,
    delivered_at    INTEGER,
    attempt         INTEGER NOT NULL,
    take_overs      INTEGER NOT NULL DEFAULT 0, -- workers that died with it in hand, one after the other, since it was last answered; frames count theirs in `attempt`
    in_doubt        INTEGER NOT NULL CHECK (in_doubt = 0 OR in_doubt = 1),
    due_at          INTEGER,
    ready_at        INTEGER,                -- NOT NULL exactly while anyone may claim the row: frame or call, waiting, without owner
    waits           INTEGER,                -- 1 exactly while a timer or a wait for a signal is pending
    unread          INTEGER,                -- parent_no exactly while the row is completed or failed and not delivered
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    settled_at      INTEGER,
    service         TEXT    NOT NULL,
    path            TEXT    NOT NULL,
    version         TEXT,
    args            TEXT,
    policy          TEXT,                   -- what a task asked for with a call, as JSON text; NULL: nothing
    outcome         TEXT,
    blocked_reason  TEXT                    -- NOT NULL exactly while the row is blocked
) STRICT;
INSERT INTO lean_stack_runs
    SELECT s.no, s.id, s.task_run_id, s.parent_no, s.kind, s.seq, s.depth, s.priority, s.status,
        (SELECT w.no FROM workers w WHERE w.id = s.owner), s.epoch, s.turn, s.made_count, s.delivered_count, s.dropped_count,
        s.delivered_order, s.delivered_turn, s.delivered_at, s.attempt, s.take_overs, s.in_doubt, s.due_at, s.ready_at,
        CASE WHEN s.kind IN ('timer', 'signal') AND s.status = 'pending' THEN 1 END,
        CASE WHEN s.status IN ('completed', 'failed') AND s.delivered_order IS NULL THEN s.parent_no END,
        s.created_at, s.started_at, s.settled_at, s.service, s.path, s.version, s.args, s.policy, s.outcome, s.blocked_reason
    FROM stack_runs s ORDER BY s.no;
DROP TABLE stack_runs;
ALTER TABLE lean_stack_runs RENAME TO stack_runs;

CREATE UNIQUE INDEX stack_runs_child ON stack_runs (parent_no, seq) WHERE parent_no IS NOT NULL;
CREATE INDEX stack_runs_unread  ON stack_runs (unread, seq) WHERE unread IS NOT NULL;
CREATE INDEX stack_runs_frames  ON stack_runs (task_run_id) WHERE kind = 'frame';
CREATE INDEX stack_runs_ready   ON stack_runs (kind, priority DESC, ready_at) WHERE ready_at IS NOT NULL;
CREATE INDEX stack_runs_owner   ON stack_runs (owner) WHERE owner IS NOT NULL;
CREATE INDEX stack_runs_due     ON stack_runs (due_at) WHERE kind = 'timer' AND waits IS NOT NULL;
CREATE INDEX stack_runs_waits   ON stack_runs (task_run_id, path) WHERE kind = 'signal' AND waits IS NOT NULL;
CREATE INDEX stack_runs_blocked ON stack_runs (task_run_id, id) WHERE blocked_reason IS NOT NULL;
