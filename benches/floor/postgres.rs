//! The floor of `chain_postgres`: the rows that an engine leaves, written against bare tokio-postgres.
//!
//! Same tables and indexes, prepared statements, one connection, the same rows in the same order, set-based, so many turns a
//! transaction as the engine's commits had in the mean, and each transaction in one trip. No engine, no fences, no locks, no reads,
//! no task: what remains is what the server and the disk cost.

use futures::future::try_join_all;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, NoTls, Statement};
use uuid::Uuid;

const SCHEMA: &str = concat!(
    include_str!("../../tasker-adaptor-postgres/migrations/0001_first.sql"),
    include_str!("../../tasker-adaptor-postgres/migrations/0002_calls.sql"),
    include_str!("../../tasker-adaptor-postgres/migrations/0003_hot.sql"),
    include_str!("../../tasker-adaptor-postgres/migrations/0004_lists.sql")
);

const ARGS: &str = r#"[{"n":7,"text":"a step of a chain"}]"#;
const OUTCOME: &str = r#"{"n":7,"text":"a step of a chain"}"#;
const INPUT: &str = r#"{"calls":10}"#;
const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const VERSION: &str = "0123456789abcdef0123456789abcdef";
const TIME: i64 = 1_700_000_000_000;

const NEW_RUNS: &str = "INSERT INTO task_runs (id, task, version, status, input, request_hash, priority, run_at, labels, created_at) SELECT id, 'chain', $2, 'queued', $3, $4, 0, $5, '{}', $5 FROM unnest($1::uuid[]) AS id";
const NEW_ROOTS: &str = "INSERT INTO stack_runs (id, task_run_id, kind, seq, depth, status, due_at, ready_at, priority, service, path, created_at) SELECT u.id, u.run, 'frame', 0, 0, 'pending', $3, $3, 0, 'task', 'chain', $3 FROM unnest($1::uuid[], $2::uuid[]) AS u(id, run)";
const CLAIM: &str = "UPDATE stack_runs SET status = 'processing', owner = $2, epoch = epoch + 1 WHERE id = ANY ($1)";
const BEGIN_RUNS: &str =
    "UPDATE task_runs SET status = 'processing', started_at = $2 WHERE id = ANY ($1)";
const DELIVER: &str = "UPDATE stack_runs SET status = 'completed', outcome = $2, owner = NULL, delivered_order = $3, delivered_turn = $3, delivered_at = $4, settled_at = $4 WHERE id = ANY ($1)";
const MAKE: &str = "INSERT INTO stack_runs (id, task_run_id, parent_id, kind, seq, depth, status, owner, epoch, attempt, ready_at, priority, service, path, args, created_at, started_at, with_frame) SELECT u.id, u.run, u.parent, 'call', $4, 0, 'processing', $5, 1, 1, $6, 0, 'bench', 'step', $7, $6, $6, true FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS u(id, run, parent)";
const SUSPEND: &str = "UPDATE stack_runs SET status = 'suspended_waiting_child', ready_at = $4, turn = $2, made_count = $2, delivered_count = $3, started_at = coalesce(started_at, $4) WHERE id = ANY ($1)";
const END: &str = "UPDATE stack_runs SET status = 'completed', outcome = $2, owner = NULL, turn = $3, delivered_count = $3, settled_at = $4 WHERE id = ANY ($1)";
const END_RUNS: &str =
    "UPDATE task_runs SET status = 'completed', outcome = $2, ended_at = $3 WHERE id = ANY ($1)";

/// The server to measure on.
pub fn url() -> Result<String, String> {
    std::env::var("TASKER_TEST_POSTGRES_URL")
        .or_else(|_| std::env::var("DATABASE_URL"))
        .map_err(|_| {
            "no Postgres: set TASKER_TEST_POSTGRES_URL or DATABASE_URL, or use `.config/postgres.sh run`"
                .to_owned()
        })
}

/// A schema with the engine's tables, and one connection.
pub struct Floor {
    client: Client,
    owner: Uuid,
    statements: Vec<Statement>,
}

/// Places of the statements.
const STATEMENTS: [&str; 9] = [
    NEW_RUNS, NEW_ROOTS, CLAIM, BEGIN_RUNS, DELIVER, MAKE, SUSPEND, END, END_RUNS,
];

/// Frames that go on together: a window of an engine.
struct Window {
    runs: Vec<Uuid>,
    frames: Vec<Uuid>,
    /// The calls that the last turn made.
    calls: Vec<Uuid>,
}

impl Floor {
    /// A new schema of this name.
    ///
    /// # Errors
    /// The server does not answer, or there is such a schema.
    pub async fn open(url: &str, schema: &str) -> Result<Self, Error> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        client
            .batch_execute(&format!(
                "CREATE SCHEMA {schema}; SET search_path TO {schema};"
            ))
            .await?;
        client
            .batch_execute(&SCHEMA.replace("tasker.", &format!("{schema}.")))
            .await?;
        let mut statements = Vec::new();
        for sql in STATEMENTS {
            statements.push(client.prepare(sql).await?);
        }
        Ok(Self {
            client,
            owner: Uuid::now_v7(),
            statements,
        })
    }

    /// Runs with as many calls one after the other: submitted in batches, then turn by turn, `batch` turns a transaction.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn chains(&mut self, runs: u32, calls: u32, batch: usize) -> Result<(), Error> {
        let batch = batch.max(1);
        let mut windows = Vec::new();
        let mut left = runs as usize;
        while left > 0 {
            let now = left.min(batch);
            windows.push(self.submit(now).await?);
            left -= now;
        }
        // As an engine does: a window of runs from first turn to last, then the next window.
        for mut window in windows {
            let owner = self.owner;
            self.transaction(&[
                (CLAIM, &[&window.frames, &owner]),
                (BEGIN_RUNS, &[&window.runs, &TIME]),
            ])
            .await?;
            for turn in 0..=calls {
                self.turn(&mut window, turn as i32, turn == calls).await?;
            }
        }
        Ok(())
    }

    async fn submit(&self, count: usize) -> Result<Window, Error> {
        let ids = || (0..count).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
        let (runs, frames) = (ids(), ids());
        self.transaction(&[
            (NEW_RUNS, &[&runs, &VERSION, &INPUT, &HASH, &TIME]),
            (NEW_ROOTS, &[&frames, &runs, &TIME]),
        ])
        .await?;
        Ok(Window {
            runs,
            frames,
            calls: Vec::new(),
        })
    }

    /// One turn of each frame.
    async fn turn(&self, window: &mut Window, turn: i32, ends: bool) -> Result<(), Error> {
        let answered = std::mem::take(&mut window.calls);
        let seq = turn + 1;
        let deliver: Work<'_> = (DELIVER, &[&answered, &OUTCOME, &turn, &TIME]);
        if ends {
            return self
                .transaction(&[
                    deliver,
                    (END, &[&window.frames, &OUTCOME, &turn, &TIME]),
                    (END_RUNS, &[&window.runs, &OUTCOME, &TIME]),
                ])
                .await;
        }
        let calls: Vec<Uuid> = window.frames.iter().map(|_| Uuid::now_v7()).collect();
        let make: Work<'_> = (
            MAKE,
            &[
                &calls,
                &window.runs,
                &window.frames,
                &seq,
                &self.owner,
                &TIME,
                &ARGS,
            ],
        );
        let suspend: Work<'_> = (SUSPEND, &[&window.frames, &seq, &turn, &TIME]);
        if turn == 0 {
            self.transaction(&[make, suspend]).await?;
        } else {
            self.transaction(&[deliver, make, suspend]).await?;
        }
        window.calls = calls;
        Ok(())
    }

    /// These statements between `BEGIN` and `COMMIT`, all in one trip.
    async fn transaction(&self, work: &[Work<'_>]) -> Result<(), Error> {
        let statements = work.iter().map(|(sql, params)| {
            let at = STATEMENTS.iter().position(|known| known == sql);
            (
                &self.statements[at.expect("every statement is prepared")],
                *params,
            )
        });
        // The futures send when they are first polled, which is in this order.
        let (_, _, commit) = tokio::join!(
            biased;
            self.client.batch_execute("BEGIN"),
            try_join_all(statements.map(|(statement, params)| self.client.execute(statement, params))),
            self.client.batch_execute("COMMIT"),
        );
        commit
    }
}

/// A statement with its parameters.
type Work<'a> = (&'static str, &'a [&'a (dyn ToSql + Sync)]);
