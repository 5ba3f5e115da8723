-- Runs are listed status by status, newest first, by these alone: in one direction, so that the comparison of a whole row gives the
-- place in them, and with the status after the task, so that what has ended is not read in search of what has not.
-- No more indexes than before, and a status was in one of them already: no write costs more.
DROP INDEX tasker.task_runs_by_status, tasker.task_runs_by_task;
CREATE INDEX task_runs_by_status ON tasker.task_runs (status, id);
CREATE INDEX task_runs_by_task ON tasker.task_runs (task, status, id);
