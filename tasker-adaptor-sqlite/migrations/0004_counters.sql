-- What the turns of a frame count, in rows of their own. A turn that leaves its frame as it was, but for these, writes some ten bytes
-- instead of the frame's whole row; and a call, which has no turns, carries four columns less.

CREATE TABLE frame_counters (
    no              INTEGER PRIMARY KEY,    -- of the frame in stack_runs
    turn            INTEGER NOT NULL,       -- turns committed
    made_count      INTEGER NOT NULL,       -- children made
    delivered_count INTEGER NOT NULL,       -- children delivered
    dropped_count   INTEGER NOT NULL        -- children cancelled by their own frame: neither open nor ever delivered
) STRICT;
INSERT INTO frame_counters
    SELECT no, turn, made_count, delivered_count, dropped_count FROM stack_runs WHERE kind = 'frame' ORDER BY no;

ALTER TABLE stack_runs DROP COLUMN turn;
ALTER TABLE stack_runs DROP COLUMN made_count;
ALTER TABLE stack_runs DROP COLUMN delivered_count;
ALTER TABLE stack_runs DROP COLUMN dropped_count;
