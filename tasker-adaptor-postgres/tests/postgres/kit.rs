//! A schema of its own for each test, and the few steps that the tests are made of.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tasker_adaptor::conformance::Harness;
use tasker_adaptor::{
    CallFinish, Claim, CommitRefused, Delivery, DeliverySource, Epoch, FrameNext, Json, Lease,
    MadeKind, Maintenance as _, NewStackRun, NewTaskRun, NewWorker, Outcome, Queue as _,
    RunStore as _, StackRunId, StorageError, TaskName, TaskRunId, TaskVersion, Timestamp,
    TurnCommit, TurnNo, TurnReceipt, WorkerId, Workers as _,
};
use tasker_adaptor_postgres::{Pooler, PostgresOptions, PostgresStorage};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_postgres::{NoTls, Transaction};
use uuid::Uuid;

/// How long a test waits for something before it says that it did not come.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// The database to test on.
pub(crate) fn url() -> String {
    std::env::var("TASKER_TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!(
            "TASKER_TEST_POSTGRES_URL is not set: run ./test.sh, which starts a PostgreSQL server for the tests, \
             or `.config/postgres.sh run cargo test -p tasker-adaptor-postgres`"
        )
    })
}

/// A schema that goes when this is dropped.
pub(crate) struct TestSchema {
    pub(crate) name: String,
    pub(crate) url: String,
}

impl TestSchema {
    pub(crate) fn new() -> Self {
        Self::at(url())
    }

    pub(crate) fn at(url: String) -> Self {
        let name = format!("test_{}", Uuid::now_v7().simple());
        Self { name, url }
    }

    pub(crate) fn options(&self) -> PostgresOptions {
        self.options_at(&self.url)
    }

    /// The same schema by another way to the server.
    pub(crate) fn options_at(&self, url: &str) -> PostgresOptions {
        PostgresStorage::options(url)
            .schema(&self.name)
            .pooler(Pooler::Off)
    }

    pub(crate) async fn storage(&self) -> PostgresStorage {
        self.options().connect().await.unwrap()
    }

    /// The URL with one more parameter.
    pub(crate) fn url_and(&self, parameter: &str) -> String {
        let sign = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{sign}{parameter}", self.url)
    }

    /// The URL with a setting of every session that comes by it: `name=value`, URL-encoded.
    pub(crate) fn url_with(&self, setting: &str) -> String {
        self.url_and(&format!("options=-c%20{setting}"))
    }

    /// A store whose connections can be told from all others on the server: their application has the schema's name.
    pub(crate) async fn named_storage(&self) -> PostgresStorage {
        let url = self.url_and(&format!("application_name={}", self.name));
        self.options_at(&url).connect().await.unwrap()
    }

    /// A plain connection to look past the adaptor, with the schema first in its path.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        let client = connect(&self.url).await;
        let path = format!("SET search_path TO \"{}\"", self.name);
        client.batch_execute(&path).await.unwrap();
        client
    }
}

/// A database of its own, for what the server counts by database. It goes when this is dropped.
pub(crate) struct TestDatabase {
    name: String,
    server: String,
    pub(crate) url: String,
}

impl TestDatabase {
    pub(crate) async fn new() -> Self {
        let (server, name) = (url(), format!("test_{}", Uuid::now_v7().simple()));
        let sql = format!("CREATE DATABASE {name} TEMPLATE template0");
        connect(&server).await.batch_execute(&sql).await.unwrap();
        let end = server.find('?').unwrap_or(server.len());
        let start = server[..end].rfind('/').unwrap() + 1;
        let url = format!("{}{name}{}", &server[..start], &server[end..]);
        Self { name, server, url }
    }

    /// How often the server has ended a transaction of this database for a deadlock, after all its connections are gone: what
    /// one of them counts is known to others when it ends, at the latest.
    pub(crate) async fn deadlocks(&self) -> i64 {
        let client = connect(&self.server).await;
        until("all connections to the database are gone", async || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
            let row = client.query_one(sql, &[&self.name]).await.unwrap();
            row.get::<_, i64>(0) == 0
        })
        .await;
        let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = $1";
        client.query_one(sql, &[&self.name]).await.unwrap().get(0)
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        clean(self.server.clone(), sql);
    }
}

impl Drop for TestSchema {
    fn drop(&mut self) {
        let sql = format!("DROP SCHEMA IF EXISTS \"{}\" CASCADE", self.name);
        clean(self.url.clone(), sql);
    }
}

/// A test that failed may have lost its server: then there is nothing to clean.
fn clean(url: String, sql: String) {
    let cleaning = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.ok()?.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.ok()?;
            tokio::spawn(connection);
            client.batch_execute("SET lock_timeout = '5s'").await.ok()?;
            client.batch_execute(&sql).await.ok()
        })
    });
    let _ = cleaning.join();
}

/// A store with all that the conformance suite asks of its backend.
pub(crate) fn harness(schema: TestSchema, storage: PostgresStorage) -> Harness {
    let (url, name) = (schema.url.clone(), schema.name.clone());
    Harness::new(storage)
        .spawn_with(|future| drop(tokio::spawn(future)))
        .fill_with(move |full| fill(url.clone(), name.clone(), full))
        .keep(schema)
}

/// What the server says when the disk is full: here after a batch has written its first call, at its second.
async fn fill(url: String, schema: String, full: bool) -> Result<(), StorageError> {
    let sql = if full {
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no space left' USING ERRCODE = '53100'; END $$;
         CREATE TRIGGER full_disk BEFORE INSERT ON stack_runs FOR EACH ROW WHEN (new.seq > 2) EXECUTE FUNCTION full_disk()"
    } else {
        "DROP TRIGGER full_disk ON stack_runs; DROP FUNCTION full_disk()"
    };
    let client = connect(&url).await;
    let sql = format!("SET search_path TO \"{schema}\"; {sql}");
    client.batch_execute(&sql).await.unwrap();
    Ok(())
}

pub(crate) async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Looks again until it is so; no longer than [`PATIENCE`].
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, looking).await;
    assert!(waited.is_ok(), "waited in vain until {what}");
}

/// Has this row until the transaction ends.
pub(crate) async fn lock_row(transaction: &Transaction<'_>, table: &str, id: Uuid) {
    let sql = format!("SELECT 1 FROM {table} WHERE id = $1 FOR UPDATE");
    transaction.execute(&sql, &[&id]).await.unwrap();
}

/// Waits until a statement of another connection to this schema waits for a lock.
pub(crate) async fn until_blocked(client: &tokio_postgres::Client, schema: &str, count: i64) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%'";
    until("a statement waits for a lock", async || {
        let row = client.query_one(sql, &[&schema]).await.unwrap();
        row.get::<_, i64>(0) >= count
    })
    .await;
}

/// Ids that no two tests share.
pub(crate) fn id() -> Uuid {
    Uuid::now_v7()
}

pub(crate) fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

pub(crate) fn new_run() -> NewTaskRun {
    NewTaskRun {
        id: TaskRunId::from_uuid(id()),
        root: StackRunId::from_uuid(id()),
        task: TaskName::new("demo"),
        version: TaskVersion::new("v1"),
        input: json("{}"),
        idempotency_key: None,
        request_hash: "hash".to_owned(),
        priority: 0,
        run_at: NOW,
        deadline: None,
        labels: BTreeMap::new(),
        correlation_id: None,
        traceparent: None,
    }
}

/// A frame that a worker holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) run: TaskRunId,
    pub(crate) frame: StackRunId,
    pub(crate) lease: Lease,
    pub(crate) turn: TurnNo,
}

pub(crate) async fn worker(storage: &PostgresStorage) -> WorkerId {
    let worker = WorkerId::from_uuid(id());
    let new = NewWorker {
        id: worker,
        name: "test".to_owned(),
        now: NOW,
        lease_ms: 60_000,
    };
    storage.register(new).await.unwrap();
    worker
}

pub(crate) fn claim(worker: WorkerId, max: usize) -> Claim {
    Claim {
        worker,
        now: NOW,
        max,
        only: None,
    }
}

/// Submits a run and claims its root.
pub(crate) async fn begin(storage: &PostgresStorage, worker: WorkerId) -> Held {
    let new = new_run();
    let (run, root) = (new.id, new.root);
    storage.submit(vec![new], NOW).await.unwrap()[0]
        .as_ref()
        .unwrap();
    let claim = Claim {
        only: Some(root),
        ..claim(worker, 1)
    };
    let row = storage.claim_frames(claim).await.unwrap().remove(0).row;
    let (epoch, turn) = (row.epoch, row.turn);
    Held {
        run,
        frame: root,
        lease: Lease { worker, epoch },
        turn,
    }
}

pub(crate) fn call(claimed: bool) -> NewStackRun {
    NewStackRun {
        id: StackRunId::from_uuid(id()),
        kind: MadeKind::Call {
            service: "demo".to_owned(),
            path: "echo".to_owned(),
            args: json("[1]"),
            policy: None,
        },
        claimed,
    }
}

pub(crate) fn turn(held: Held, made: Vec<NewStackRun>) -> TurnCommit {
    TurnCommit {
        frame: held.frame,
        task_run: held.run,
        turn: held.turn,
        lease: held.lease,
        time: NOW,
        delivered: Vec::new(),
        made,
        dropped: Vec::new(),
        logs: Vec::new(),
        next: FrameNext::Suspended,
    }
}

pub(crate) async fn commit_one(
    storage: &PostgresStorage,
    turn: TurnCommit,
) -> Result<Result<TurnReceipt, CommitRefused>, StorageError> {
    let answers = storage.commit(Arc::from(vec![turn])).await?;
    Ok(answers.into_iter().next().unwrap())
}

/// Delivers the outcome of a call that was born claimed.
pub(crate) fn local(child: StackRunId, seq: u32) -> Delivery {
    Delivery {
        child,
        seq: tasker_adaptor::CallSeq(seq),
        source: DeliverySource::Local {
            epoch: Epoch(1),
            outcome: Outcome::Completed(Some(json("1"))),
        },
    }
}

pub(crate) fn settled(call: StackRunId, worker: WorkerId, epoch: Epoch) -> CallFinish {
    CallFinish {
        call,
        lease: Lease { worker, epoch },
        end: tasker_adaptor::CallEnd::Settled(Outcome::Completed(Some(json("1")))),
    }
}

pub(crate) async fn assert_sound(storage: &PostgresStorage) {
    let violations = storage.audit().await.unwrap();
    assert!(violations.is_empty(), "{violations:#?}");
}

/// A child process of `.config/postgres.sh` that works until its input ends.
pub(crate) struct Served {
    pub(crate) url: String,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Served {
    pub(crate) async fn start(command: &str) -> Self {
        Self::start_with(command, &[]).await
    }

    pub(crate) async fn start_with(command: &str, files: &[&Path]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../.config/postgres.sh");
        let mut child = Command::new("bash")
            .args([script, command])
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = tokio::time::timeout(PATIENCE * 4, output.next_line())
            .await
            .unwrap();
        let url = url
            .unwrap()
            .expect("the script says on stderr why it cannot start");
        Self {
            url,
            input,
            output,
            child,
        }
    }

    /// Restarts the server as after a crash, and waits until it answers.
    pub(crate) async fn restart(&mut self) {
        let input = self.input.as_mut().unwrap();
        input.write_all(b"restart\n").await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, self.output.next_line())
            .await
            .unwrap();
        assert_eq!(answer.unwrap().as_deref(), Some("restarted"));
    }

    pub(crate) async fn stop(mut self) {
        drop(self.input.take());
        self.child.wait().await.unwrap();
    }
}

static SEED: AtomicU64 = AtomicU64::new(1);

/// A number that differs at each call, the same in each run.
pub(crate) fn dice() -> u64 {
    let mut x = SEED.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
