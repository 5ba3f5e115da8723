//! A connection in use: statements one by one, or many in one trip.
//!
//! Statements go out in the order given and the server works in that order, so a pipeline of locks takes them in order.
//! Invariants: a session that is dropped inside a transaction, or before its answer, closes its connection, so that neither
//! half a transaction nor a dead connection goes back to the pool · of a pipeline the first error counts; those behind it only say that the transaction has failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use futures::future;
use tasker_adaptor::StorageError;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row, Statement};

use crate::conflicts::Conflicts;
use crate::error::{from_driver, from_pool};
use crate::schema::Schema;

/// How each of our transactions begins. The protocol decides in a later statement what it sees under the locks of an earlier
/// one, so each statement must see what was committed before it, whatever the role or the database has for a default.
/// A default of `READ ONLY` stays: that is the operator's word.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// What follows on a connection that is not only ours: the settings are for this transaction only, so that they mean the same behind a
/// pooler.
///
/// A plan is kept with its statement for as long as the connection lives: one that was made while the tables were small
/// must not read them from end to end when they are large. It serves any parameters: to plan for the arrays of each batch anew
/// takes longer than some of the statements. And a transaction whose client fell silent between two trips
/// (its cable was pulled, its machine stands still) must not keep its locks: others wait for them, the reaper too.
const SETTINGS: &str = "; SET LOCAL enable_seqscan = off; SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL jit = off";

/// The same settings for a connection that is only ours, once. And what single statements run at: they mean the same at any level
/// (see [`Session::pipeline`]), but above this one some would be sent twice.
const OWN_SETTINGS: &str = "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan; SET jit = off; SET default_transaction_isolation = 'read committed'";

/// A parameter with its type.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// One statement of a pipeline.
pub(crate) struct Step<'a> {
    sql: Arc<str>,
    params: Vec<Param<'a>>,
    kind: Kind,
}

/// How a statement is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Parsed and planned once a connection where it is part of a transaction.
    Statement,
    /// In any case: its plan is the right one however large the tables are.
    Lasting,
    /// It has no parameters and answers no rows, and may be several: one message, and nothing is planned.
    Command,
}

/// What a connection may keep from one use to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Nothing: a transaction pooler stands in between.
    Nothing,
    /// Statements: others use the connection too.
    Statements,
    /// Statements and settings: it is ours.
    Settings,
}

/// How long the two sides wait for each other.
#[derive(Debug)]
pub(crate) struct Patience {
    /// The client for the answer to one trip, before it gives the connection up.
    reply: Duration,
    /// The shortest lease of this process in milliseconds, as soon as there is one.
    lease_ms: AtomicI64,
}

impl Patience {
    pub(crate) fn new(reply: Duration) -> Self {
        let lease_ms = AtomicI64::new(i64::MAX);
        Self { reply, lease_ms }
    }

    /// A worker of this process has this lease.
    pub(crate) fn lease(&self, millis: i64) {
        self.lease_ms.fetch_min(millis, Ordering::Relaxed);
    }

    /// The server for the next statement of a transaction, in milliseconds: what a worker holds must be free to be taken
    /// over when its lease is gone.
    fn silence_ms(&self) -> i32 {
        let half = self.lease_ms.load(Ordering::Relaxed) / 2;
        half.clamp(500, 10_000) as i32
    }

    /// A heartbeat: a later one may find a way that works.
    pub(crate) fn heartbeat(&self) -> Duration {
        let millis = self.lease_ms.load(Ordering::Relaxed).clamp(1_000, 10_000);
        Duration::from_millis(millis.unsigned_abs())
    }
}

/// A connection of the pool.
pub(crate) struct Session {
    object: Option<Object>,
    schema: Arc<Schema>,
    patience: Arc<Patience>,
    /// Statements of transactions have names, and are parsed and planned once a connection; not behind a transaction pooler.
    /// Single statements have none, but for [`Session::find`]: they are planned for the tables as they are at each call.
    keeps: Keeps,
    in_transaction: bool,
    /// A trip has begun and not ended.
    under_way: bool,
}

impl Session {
    pub(crate) async fn open(
        pool: &Pool,
        schema: &Arc<Schema>,
        patience: &Arc<Patience>,
        keeps: Keeps,
    ) -> Result<Self, StorageError> {
        let object = pool.get().await.map_err(from_pool)?;
        Ok(Self {
            object: Some(object),
            schema: Arc::clone(schema),
            patience: Arc::clone(patience),
            keeps,
            in_transaction: false,
            under_way: false,
        })
    }

    /// A statement with the schema's name in it.
    pub(crate) fn step<'a>(&self, sql: &'static str, params: Vec<Param<'a>>) -> Step<'a> {
        Step {
            sql: self.schema.sql(sql),
            params,
            kind: Kind::Statement,
        }
    }

    /// One statement that reads by a key: where the connection is ours it is planned once.
    pub(crate) async fn find(
        &mut self,
        sql: &'static str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StorageError> {
        let mut step = self.step(sql, params.to_vec());
        step.kind = Kind::Lasting;
        let mut answers = self.pipeline(vec![step]).await?;
        Ok(answers.pop().unwrap_or_default())
    }

    /// One statement.
    pub(crate) async fn query(
        &mut self,
        sql: &'static str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StorageError> {
        let step = self.step(sql, params.to_vec());
        let mut answers = self.pipeline(vec![step]).await?;
        Ok(answers.pop().unwrap_or_default())
    }

    /// `BEGIN` and these statements in one trip.
    pub(crate) async fn begin(
        &mut self,
        mut steps: Vec<Step<'_>>,
    ) -> Result<Vec<Vec<Row>>, StorageError> {
        self.in_transaction = true;
        let settings = match self.keeps {
            Keeps::Settings => "",
            Keeps::Statements | Keeps::Nothing => SETTINGS,
        };
        let silence = self.patience.silence_ms();
        let begin =
            format!("{BEGIN}{settings}; SET LOCAL idle_in_transaction_session_timeout = {silence}");
        steps.insert(0, command(begin));
        let mut answers = self.pipeline(steps).await?;
        Ok(answers.split_off(1))
    }

    /// These statements and `COMMIT` in one trip. The server answers `COMMIT` well even after a failed statement,
    /// so only the answers of all the others say that it happened.
    pub(crate) async fn commit(
        &mut self,
        mut steps: Vec<Step<'_>>,
    ) -> Result<Vec<Vec<Row>>, StorageError> {
        steps.push(command("COMMIT"));
        let mut answers = self.pipeline(steps).await?;
        answers.pop();
        self.in_transaction = false;
        Ok(answers)
    }

    /// Ends the transaction without effect and keeps the connection.
    pub(crate) async fn rollback(&mut self) -> Result<(), StorageError> {
        if self.in_transaction {
            self.pipeline(vec![command("ROLLBACK")]).await?;
            self.in_transaction = false;
        }
        Ok(())
    }

    /// The audit's queries as they are, all on one snapshot, with this schema first in the path.
    pub(crate) async fn audit(
        &mut self,
        schema: &str,
        queries: impl Iterator<Item = &'static str>,
    ) -> Result<Vec<Vec<Row>>, StorageError> {
        self.in_transaction = true;
        // Queries of the audit read whole tables, unlike all others.
        let begin = format!(
            "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL enable_seqscan = on; SET LOCAL search_path TO {schema}"
        );
        let mut steps = vec![command(begin)];
        steps.extend(queries.map(|sql| Step {
            sql: sql.into(),
            params: Vec::new(),
            kind: Kind::Statement,
        }));
        // It reads all rows of all open runs: as long as that takes.
        let mut answers = self.trip(&steps, Duration::MAX).await?;
        self.rollback().await?;
        Ok(answers.split_off(1))
    }

    /// Sends all, then reads all.
    ///
    /// Outside of a transaction each statement is one: what lost against another is sent again. So a single statement
    /// means the same at every isolation level: above `READ COMMITTED` the server refuses it where it would have waited and
    /// looked again.
    pub(crate) async fn pipeline(
        &mut self,
        steps: Vec<Step<'_>>,
    ) -> Result<Vec<Vec<Row>>, StorageError> {
        let patience = self.patience.reply;
        let mut conflicts = Conflicts::default();
        loop {
            match self.trip(&steps, patience).await {
                Err(error) if !self.in_transaction && conflicts.allow_another_try(&error).await => {
                }
                outcome => return outcome,
            }
        }
    }

    async fn trip(
        &mut self,
        steps: &[Step<'_>],
        patience: Duration,
    ) -> Result<Vec<Vec<Row>>, StorageError> {
        let Some(object) = self.object.as_ref() else {
            return Err(crate::error::unavailable("the connection was given up"));
        };
        self.under_way = true;
        let answers = send(object, steps, self.keeps, self.in_transaction);
        let outcome = tokio::time::timeout(patience, answers).await;
        self.under_way = false;
        let Ok(outcome) = outcome else {
            self.discard();
            return Err(crate::error::unavailable(format!(
                "there was no answer for {} s, and the connection was given up; \
                 if the server needs longer than that, raise reply_timeout",
                patience.as_secs_f32()
            )));
        };
        match outcome {
            Ok(answers) => Ok(answers),
            Err(error) => {
                let error = from_driver(error);
                if matches!(
                    error,
                    StorageError::Unavailable { .. } | StorageError::ReadOnly { .. }
                ) {
                    // A standby that was the primary keeps answering: the next session must find the new one.
                    self.discard();
                }
                Err(error)
            }
        }
    }

    fn discard(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A trip that the caller gave up may be one that is never answered: the next session would wait behind it.
        if self.in_transaction || self.under_way {
            self.discard();
        }
    }
}

fn command(sql: impl Into<Arc<str>>) -> Step<'static> {
    Step {
        sql: sql.into(),
        params: Vec::new(),
        kind: Kind::Command,
    }
}

async fn send(
    object: &Object,
    steps: &[Step<'_>],
    keeps: Keeps,
    in_transaction: bool,
) -> Result<Vec<Vec<Row>>, Error> {
    // What has no statement yet is new.
    if keeps == Keeps::Settings && object.statement_cache.size() == 0 {
        object.batch_execute(OWN_SETTINGS).await?;
    }
    let mut statements: Vec<Option<Statement>> = Vec::with_capacity(steps.len());
    for step in steps {
        // All are parsed before the first is sent: a statement that had to wait for its name would be overtaken.
        let named = match keeps {
            Keeps::Nothing => false,
            Keeps::Statements => in_transaction,
            Keeps::Settings => in_transaction || step.kind == Kind::Lasting,
        };
        statements.push(if named && !step.params.is_empty() {
            let types: Vec<Type> = step.params.iter().map(|(_, kind)| kind.clone()).collect();
            Some(object.prepare_typed_cached(&step.sql, &types).await?)
        } else {
            None
        });
    }
    let sent = steps
        .iter()
        .zip(&statements)
        .map(async |(step, statement)| match statement {
            Some(statement) => {
                let params: Vec<_> = step.params.iter().map(|(value, _)| *value).collect();
                object.query(statement, &params).await
            }
            None if step.kind == Kind::Command => {
                object.batch_execute(&step.sql).await.map(|()| Vec::new())
            }
            None => object.query_typed(&step.sql, &step.params).await,
        });
    let answers = future::join_all(sent).await;
    answers.into_iter().collect()
}

/// A `uuid` parameter.
pub(crate) fn uuid<T: ToSql + Sync>(value: &T) -> Param<'_> {
    (value, Type::UUID)
}

/// A `uuid[]` parameter.
pub(crate) fn uuids<T: ToSql + Sync>(values: &T) -> Param<'_> {
    (values, Type::UUID_ARRAY)
}

/// A `text` parameter.
pub(crate) fn text<T: ToSql + Sync>(value: &T) -> Param<'_> {
    (value, Type::TEXT)
}

/// A `text[]` parameter.
pub(crate) fn texts<T: ToSql + Sync>(values: &T) -> Param<'_> {
    (values, Type::TEXT_ARRAY)
}

/// An `int4` parameter.
pub(crate) fn int<T: ToSql + Sync>(value: &T) -> Param<'_> {
    (value, Type::INT4)
}

/// An `int4[]` parameter.
pub(crate) fn ints<T: ToSql + Sync>(values: &T) -> Param<'_> {
    (values, Type::INT4_ARRAY)
}

/// An `int8` parameter.
pub(crate) fn long<T: ToSql + Sync>(value: &T) -> Param<'_> {
    (value, Type::INT8)
}

/// An `int8[]` parameter.
pub(crate) fn longs<T: ToSql + Sync>(values: &T) -> Param<'_> {
    (values, Type::INT8_ARRAY)
}

/// A `bytea` parameter.
pub(crate) fn bytes<T: ToSql + Sync>(value: &T) -> Param<'_> {
    (value, Type::BYTEA)
}

/// A `bool[]` parameter.
pub(crate) fn bools<T: ToSql + Sync>(values: &T) -> Param<'_> {
    (values, Type::BOOL_ARRAY)
}
