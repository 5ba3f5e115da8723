-- A turn writes its frame again and settles a call. Postgres leaves the indexes alone (a HOT update) only where no column that an
-- index names has another value than before, and columns of an index's condition count. So indexes name columns that a turn leaves
-- as they are: what follows from the row, and is NULL in every row that nobody has to look for.

-- A call that its frame's owner asks: it is found through the frame. False as soon as somebody else holds it, or the frame is let go.
ALTER TABLE tasker.stack_runs ADD COLUMN with_frame boolean NOT NULL DEFAULT false;
ALTER TABLE tasker.stack_runs
    -- Anybody may claim the row from then on.
    ADD COLUMN ready bigint GENERATED ALWAYS AS (CASE WHEN status = 'pending' AND kind IN ('frame', 'call')
        OR status = 'pending_resume' AND owner IS NULL THEN ready_at END) STORED,
    -- It becomes due by itself.
    ADD COLUMN due bigint GENERATED ALWAYS AS (CASE WHEN status = 'pending' THEN due_at END) STORED,
    -- Who has it, if that is not said by its frame.
    ADD COLUMN held uuid GENERATED ALWAYS AS (CASE WHEN NOT with_frame THEN owner END) STORED,
    -- unread: settled, and its frame has not been told. asleep: a timer or a signal wait that is open.
    ADD COLUMN mark text COLLATE "C" GENERATED ALWAYS AS (CASE WHEN status = 'blocked' THEN 'blocked'
        WHEN status = 'pending' AND kind IN ('timer', 'signal') THEN 'asleep'
        WHEN status IN ('completed', 'failed') AND delivered_order IS NULL AND parent_id IS NOT NULL THEN 'unread' END) STORED;
-- Room on the page for the next version of each row.
ALTER TABLE tasker.stack_runs SET (fillfactor = 50);

DROP INDEX tasker.stack_runs_children, tasker.stack_runs_by_run, tasker.stack_runs_undelivered, tasker.stack_runs_ready_frames,
    tasker.stack_runs_ready_calls, tasker.stack_runs_due, tasker.stack_runs_owned, tasker.stack_runs_waits, tasker.stack_runs_blocked;
-- The rows of a run, and in it the children of a frame.
CREATE UNIQUE INDEX stack_runs_tree ON tasker.stack_runs (task_run_id, parent_id, seq);
CREATE INDEX stack_runs_marked ON tasker.stack_runs (parent_id, mark) WHERE mark IS NOT NULL;
CREATE INDEX stack_runs_ready_frames ON tasker.stack_runs (priority DESC, ready, id) WHERE kind = 'frame' AND ready IS NOT NULL;
CREATE INDEX stack_runs_ready_calls ON tasker.stack_runs (priority DESC, ready, id) WHERE kind = 'call' AND ready IS NOT NULL;
CREATE INDEX stack_runs_due ON tasker.stack_runs (due, id) WHERE due IS NOT NULL;
CREATE INDEX stack_runs_held ON tasker.stack_runs (held) WHERE held IS NOT NULL;
CREATE INDEX stack_runs_waits ON tasker.stack_runs (task_run_id, created_at, id) WHERE kind = 'signal' AND mark = 'asleep';
CREATE INDEX stack_runs_blocked ON tasker.stack_runs (task_run_id, id) WHERE mark = 'blocked';
