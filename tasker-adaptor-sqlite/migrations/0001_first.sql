-- Ids are UUIDv7 as text, times are milliseconds since 1970 (UTC), statuses are words, payloads are exact JSON text.
-- Words are checked with OR: SQLite builds a temporary table for each longer IN list, each time a row is written (measured: most of the cost of a step).
-- Every index is there for a query of the engine; none of the engine's queries grows with the history of ended runs.

CREATE TABLE task_functions (
    name         TEXT    NOT NULL,
    version      TEXT    NOT NULL,
    source       TEXT    NOT NULL,
    modules      TEXT,
    schema       TEXT    NOT NULL,
    options      TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    published_at INTEGER NOT NULL,          -- the newest of a name is its current version
    PRIMARY KEY (name, version)
) STRICT;
CREATE UNIQUE INDEX task_functions_current ON task_functions (name, published_at);

CREATE TABLE task_runs (
    id              TEXT    NOT NULL PRIMARY KEY,
    task            TEXT    NOT NULL,
    version         TEXT    NOT NULL,
    status          TEXT    NOT NULL CHECK (status = 'queued' OR status = 'processing' OR status = 'suspended' OR status = 'blocked' OR status = 'completed' OR status = 'failed' OR status = 'cancelled'),
    input           TEXT    NOT NULL,
    outcome         TEXT,                   -- JSON of the result, '' for undefined; JSON of the failure
    blocked_reason  TEXT,
    idempotency_key TEXT,
    request_hash    TEXT    NOT NULL,
    priority        INTEGER NOT NULL,
    run_at          INTEGER NOT NULL,
    deadline        INTEGER,
    labels          TEXT,                   -- JSON object; NULL when there are none
    correlation_id  TEXT,
    traceparent     TEXT,
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    ended_at        INTEGER,
    cancel_by       INTEGER,
    folded_at       INTEGER,
    swept_at        INTEGER,                -- when the last of its stack runs was deleted
    record          BLOB
) STRICT;
CREATE UNIQUE INDEX task_runs_key ON task_runs (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX task_runs_by_status  ON task_runs (status, id);
CREATE INDEX task_runs_by_task    ON task_runs (task, id);
CREATE INDEX task_runs_to_cancel  ON task_runs (cancel_by) WHERE cancel_by IS NOT NULL AND ended_at IS NULL;
CREATE INDEX task_runs_to_fold    ON task_runs (ended_at)  WHERE ended_at IS NOT NULL AND folded_at IS NULL;
CREATE INDEX task_runs_to_sweep   ON task_runs (folded_at) WHERE folded_at IS NOT NULL AND swept_at IS NULL;
CREATE INDEX task_runs_to_delete  ON task_runs (status, ended_at) WHERE folded_at IS NOT NULL;

CREATE TABLE stack_runs (
    no              INTEGER PRIMARY KEY,    -- of this file: makes the indexes by parent a quarter of the size
    id              TEXT    NOT NULL UNIQUE,
    task_run_id     TEXT    NOT NULL,
    parent_id       TEXT,                   -- the frame that made it; NULL for the root frame
    parent_no       INTEGER,                -- the same frame's no
    kind            TEXT    NOT NULL CHECK (kind = 'frame' OR kind = 'call' OR kind = 'timer' OR kind = 'signal'),
    seq             INTEGER NOT NULL,
    depth           INTEGER NOT NULL,
    priority        INTEGER NOT NULL,       -- of the run
    status          TEXT    NOT NULL CHECK (status = 'pending' OR status = 'processing' OR status = 'suspended_waiting_child' OR status = 'pending_resume' OR status = 'blocked' OR status = 'completed' OR status = 'failed' OR status = 'cancelled'),
    owner           TEXT,
    epoch           INTEGER NOT NULL,
    turn            INTEGER NOT NULL,
    made_count      INTEGER NOT NULL,
    delivered_count INTEGER NOT NULL,
    dropped_count   INTEGER NOT NULL,       -- children cancelled by their own frame: neither open nor ever delivered
    delivered_order INTEGER,
    delivered_turn  INTEGER,
    delivered_at    INTEGER,
    attempt         INTEGER NOT NULL,
    in_doubt        INTEGER NOT NULL CHECK (in_doubt = 0 OR in_doubt = 1),
    due_at          INTEGER,
    ready_at        INTEGER,                -- NOT NULL exactly while anyone may claim the row: frame or call, waiting, without owner
    service         TEXT    NOT NULL,
    path            TEXT    NOT NULL,
    args            TEXT,
    version         TEXT,
    outcome         TEXT,
    blocked_reason  TEXT,
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    settled_at      INTEGER
) STRICT;
CREATE UNIQUE INDEX stack_runs_child     ON stack_runs (parent_no, seq) WHERE parent_no IS NOT NULL;
CREATE UNIQUE INDEX stack_runs_delivered ON stack_runs (parent_no, delivered_order) WHERE delivered_order IS NOT NULL;
CREATE INDEX stack_runs_unread  ON stack_runs (parent_no, seq) WHERE delivered_order IS NULL AND (status = 'completed' OR status = 'failed');
CREATE INDEX stack_runs_frames  ON stack_runs (task_run_id) WHERE kind = 'frame';
CREATE INDEX stack_runs_ready   ON stack_runs (kind, priority DESC, ready_at) WHERE ready_at IS NOT NULL;
CREATE INDEX stack_runs_owner   ON stack_runs (owner) WHERE owner IS NOT NULL;
CREATE INDEX stack_runs_due     ON stack_runs (due_at) WHERE kind = 'timer' AND status = 'pending';
CREATE INDEX stack_runs_waits   ON stack_runs (task_run_id, path) WHERE kind = 'signal' AND status = 'pending';
CREATE INDEX stack_runs_blocked ON stack_runs (task_run_id, id) WHERE status = 'blocked';

CREATE TABLE log_lines (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,   -- the cursor: never used again, later lines are greater
    task_run_id TEXT    NOT NULL,
    frame_id    TEXT,
    time        INTEGER NOT NULL,
    level       TEXT    NOT NULL CHECK (level = 'debug' OR level = 'info' OR level = 'warn' OR level = 'error'),
    message     TEXT    NOT NULL,
    data        TEXT
) STRICT;
CREATE INDEX log_lines_by_run ON log_lines (task_run_id);

CREATE TABLE workers (
    id            TEXT    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL,
    state         TEXT    NOT NULL CHECK (state = 'live' OR state = 'dead'),
    registered_at INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE signals (
    id          TEXT    NOT NULL PRIMARY KEY,
    task_run_id TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    payload     TEXT    NOT NULL,
    sent_at     INTEGER NOT NULL,
    consumed_by TEXT UNIQUE                 -- the wait that it settled
) STRICT;
CREATE INDEX signals_by_run  ON signals (task_run_id);
CREATE INDEX signals_waiting ON signals (task_run_id, name) WHERE consumed_by IS NULL;

CREATE TABLE keystore (
    namespace  TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    bytes      BLOB    NOT NULL,            -- sealed
    key_id     TEXT    NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, key)
) STRICT, WITHOUT ROWID;
