-- Workers that died with a call in hand, one after the other, since it was last answered. Frames count theirs in `attempt`.
ALTER TABLE tasker.stack_runs ADD COLUMN take_overs integer NOT NULL DEFAULT 0;
