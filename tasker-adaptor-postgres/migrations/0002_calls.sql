-- Workers that died with a call in hand, one after the other, since it was last answered. Frames count theirs in `attempt`.
ALTER TABLE tasker.stack_runs ADD COLUMN take_overs integer NOT NULL DEFAULT 0;
-- What a task asked for with a call: its timeout, retries and what to do when its outcome is unknown, as JSON text. NULL: nothing.
ALTER TABLE tasker.stack_runs ADD COLUMN policy text;
