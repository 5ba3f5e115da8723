-- Tasker, schema 1. Times are milliseconds since 1970 (to_timestamp(created_at / 1000.0) reads them); payloads are exact JSON text.

CREATE TABLE tasker.task_functions (
    name         text COLLATE "C" NOT NULL,
    version      text COLLATE "C" NOT NULL,
    source       text NOT NULL,
    modules      text,
    schema       text NOT NULL,
    options      text NOT NULL,
    created_at   bigint NOT NULL,
    published_at bigint NOT NULL,
    PRIMARY KEY (name, version)
);
CREATE UNIQUE INDEX task_functions_current ON tasker.task_functions (name, published_at DESC);

CREATE TABLE tasker.task_runs (
    id              uuid PRIMARY KEY,
    task            text COLLATE "C" NOT NULL,
    version         text COLLATE "C" NOT NULL,
    status          text NOT NULL CHECK (status IN ('queued', 'processing', 'suspended', 'blocked', 'completed', 'failed', 'cancelled')),
    input           text NOT NULL,
    outcome         text,
    blocked_reason  text,
    idempotency_key text COLLATE "C",
    request_hash    text NOT NULL,
    priority        integer NOT NULL,
    run_at          bigint NOT NULL,
    deadline        bigint,
    labels          jsonb NOT NULL,
    correlation_id  text,
    traceparent     text,
    created_at      bigint NOT NULL,
    started_at      bigint,
    ended_at        bigint,
    cancel_by       bigint,
    folded_at       bigint,
    cleaned         boolean NOT NULL DEFAULT false,
    record          bytea
);
CREATE UNIQUE INDEX task_runs_key ON tasker.task_runs (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX task_runs_by_status ON tasker.task_runs (status, id DESC);
CREATE INDEX task_runs_by_task ON tasker.task_runs (task, id DESC);
CREATE INDEX task_runs_by_label ON tasker.task_runs USING gin (labels jsonb_path_ops) WHERE labels <> '{}';
CREATE INDEX task_runs_to_fold ON tasker.task_runs (ended_at, id) WHERE ended_at IS NOT NULL AND folded_at IS NULL;
CREATE INDEX task_runs_to_clean ON tasker.task_runs (id) WHERE folded_at IS NOT NULL AND NOT cleaned;
CREATE INDEX task_runs_folded ON tasker.task_runs (status, ended_at, id) WHERE folded_at IS NOT NULL;
CREATE INDEX task_runs_cancel_by ON tasker.task_runs (cancel_by, id) WHERE cancel_by IS NOT NULL AND ended_at IS NULL;

CREATE TABLE tasker.stack_runs (
    id              uuid PRIMARY KEY,
    task_run_id     uuid NOT NULL,
    parent_id       uuid,
    kind            text NOT NULL CHECK (kind IN ('frame', 'call', 'timer', 'signal')),
    seq             integer NOT NULL,
    depth           integer NOT NULL,
    status          text NOT NULL CHECK (status IN ('pending', 'processing', 'suspended_waiting_child', 'pending_resume', 'blocked', 'completed', 'failed', 'cancelled')),
    owner           uuid,
    epoch           integer NOT NULL DEFAULT 0,
    turn            integer NOT NULL DEFAULT 0,
    made_count      integer NOT NULL DEFAULT 0,
    delivered_count integer NOT NULL DEFAULT 0,
    delivered_order integer,
    delivered_turn  integer,
    delivered_at    bigint,
    attempt         integer NOT NULL DEFAULT 0,
    in_doubt        boolean NOT NULL DEFAULT false,
    due_at          bigint,
    ready_at        bigint NOT NULL,
    priority        integer NOT NULL,
    service         text NOT NULL,
    path            text NOT NULL,
    args            text,
    version         text,
    outcome         text,
    blocked_reason  text,
    created_at      bigint NOT NULL,
    started_at      bigint,
    settled_at      bigint
);
-- Rows change status a few times and then go: leave room on the page, and clean early.
ALTER TABLE tasker.stack_runs SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE UNIQUE INDEX stack_runs_children ON tasker.stack_runs (parent_id, seq) WHERE parent_id IS NOT NULL;
CREATE UNIQUE INDEX stack_runs_roots ON tasker.stack_runs (task_run_id) WHERE parent_id IS NULL;
CREATE INDEX stack_runs_by_run ON tasker.stack_runs (task_run_id, kind);
-- What a frame still waits for, or has not been told.
CREATE INDEX stack_runs_undelivered ON tasker.stack_runs (parent_id) WHERE delivered_order IS NULL AND status <> 'cancelled';
CREATE INDEX stack_runs_ready_frames ON tasker.stack_runs (priority DESC, ready_at, id)
    WHERE kind = 'frame' AND status IN ('pending', 'pending_resume') AND owner IS NULL;
CREATE INDEX stack_runs_ready_calls ON tasker.stack_runs (priority DESC, ready_at, id) WHERE kind = 'call' AND status = 'pending';
CREATE INDEX stack_runs_due ON tasker.stack_runs (due_at, id) WHERE status = 'pending' AND due_at IS NOT NULL;
CREATE INDEX stack_runs_owned ON tasker.stack_runs (owner) WHERE owner IS NOT NULL;
CREATE INDEX stack_runs_waits ON tasker.stack_runs (task_run_id, created_at, id) WHERE kind = 'signal' AND status = 'pending';
CREATE INDEX stack_runs_blocked ON tasker.stack_runs (task_run_id, id) WHERE status = 'blocked';

CREATE TABLE tasker.log_lines (
    task_run_id uuid NOT NULL,
    cursor      bigint NOT NULL,
    frame_id    uuid,
    time        bigint NOT NULL,
    level       text NOT NULL CHECK (level IN ('debug', 'info', 'warn', 'error')),
    message     text NOT NULL,
    data        text,
    PRIMARY KEY (task_run_id, cursor)
);

CREATE TABLE tasker.workers (
    id            uuid PRIMARY KEY,
    name          text NOT NULL,
    state         text NOT NULL CHECK (state IN ('live', 'dead')),
    registered_at bigint NOT NULL,
    expires_at    bigint NOT NULL
);
CREATE INDEX workers_live ON tasker.workers (expires_at) WHERE state = 'live';
CREATE INDEX workers_dead ON tasker.workers (id) WHERE state = 'dead';
-- One row a worker, written at every heartbeat.
ALTER TABLE tasker.workers SET (fillfactor = 50);

CREATE TABLE tasker.signals (
    id          uuid PRIMARY KEY,
    arrival     bigint GENERATED ALWAYS AS IDENTITY,
    task_run_id uuid NOT NULL,
    name        text NOT NULL,
    payload     text NOT NULL,
    consumed_by uuid UNIQUE,
    created_at  bigint NOT NULL
);
CREATE INDEX signals_stored ON tasker.signals (task_run_id, arrival) WHERE consumed_by IS NULL;
CREATE INDEX signals_by_run ON tasker.signals (task_run_id);

CREATE TABLE tasker.keystore (
    namespace  text COLLATE "C" NOT NULL,
    key        text COLLATE "C" NOT NULL,
    bytes      bytea NOT NULL,
    key_id     text NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (namespace, key)
);
