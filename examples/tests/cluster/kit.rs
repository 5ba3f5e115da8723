//! A cluster: workers of the chaos program, and what they leave.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use tasker_adaptor_postgres::PostgresStorage;
use tasker_core::{Engine, RunHandle};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::NoTls;

const TASK: &str = "/** @task chain */
    module.exports = async ({ n }, { tools }) => {
        let sum = n;
        for (let step = 0; step < 5; step += 1) sum = await tools.world.add({ a: sum, b: step });
        return sum;
    }";
pub(crate) const CALLS: usize = 5;
/// How long a test waits for something before it says that it did not come.
pub(crate) const PATIENCE: Duration = Duration::from_mins(10);
/// How often it looks at what no signal tells: rows and files that other processes write.
const LOOK: Duration = Duration::from_millis(20);

/// One cluster at a time: its processes would take each other's processor, and shares are counted.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Three workers and a client on a schema of their own.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    schema: String,
    lease: Duration,
    client: Engine,
    sql: tokio_postgres::Client,
    pub(crate) workers: Vec<Child>,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Three workers, the first of them by way of `proxied`.
    pub(crate) async fn start(lease: Duration, proxied: impl AsyncFnOnce(&str) -> String) -> Self {
        let alone = ALONE.lock().await;
        let url = std::env::var("TASKER_TEST_POSTGRES_URL").expect(
            "TASKER_TEST_POSTGRES_URL is not set: run ./test.sh, or `.config/postgres.sh run cargo test -p tasker-examples`",
        );
        let folder = tempfile::tempdir().unwrap();
        let schema = format!("cluster_{}", uuid::Uuid::now_v7().simple());
        let storage = PostgresStorage::options(&url)
            .schema(&schema)
            .connect()
            .await
            .unwrap();
        let client = Engine::builder().storage(storage).client().await.unwrap();
        client.publish(TASK).await.unwrap();
        let (sql, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        sql.batch_execute(&format!("SET search_path TO {schema}"))
            .await
            .unwrap();
        let mut cluster = Self {
            folder,
            schema,
            lease,
            client,
            sql,
            workers: Vec::new(),
            _alone: alone,
        };
        let first = proxied(&url).await;
        cluster.spawn(&first);
        cluster.spawn(&url);
        cluster.spawn(&url);
        cluster
            .until("three workers are live", async |it| it.live().await == 3)
            .await;
        cluster
    }

    fn spawn(&mut self, url: &str) {
        let worker = Command::new(env!("CARGO_BIN_EXE_chaos"))
            .args(["--storage", "postgres", "--schema", &self.schema])
            .args(["--lease-ms", &self.lease.as_millis().to_string()])
            .args(["--folder", &self.folder.path().display().to_string()])
            .args(["--worker", &self.workers.len().to_string()])
            .env("TASKER_TEST_POSTGRES_URL", url)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.workers.push(worker);
    }

    pub(crate) fn process(&self, worker: usize) -> u32 {
        self.workers[worker].id().expect("it runs")
    }

    async fn count(&self, sql: &str) -> i64 {
        self.sql.query_one(sql, &[]).await.unwrap().get(0)
    }

    pub(crate) async fn live(&self) -> i64 {
        self.count("SELECT count(*) FROM workers WHERE state = 'live'")
            .await
    }

    /// Rows that this process holds, under any of its worker ids.
    pub(crate) async fn held_by(&self, process: u32) -> i64 {
        self.count(&format!(
            "SELECT count(*) FROM stack_runs s JOIN workers w ON w.id = s.owner WHERE w.name LIKE '%-{process}'"
        ))
        .await
    }

    pub(crate) async fn until(&self, what: &str, is_so: impl AsyncFn(&Self) -> bool) {
        let looking = async {
            while !is_so(self).await {
                tokio::time::sleep(LOOK).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, looking).await;
        assert!(waited.is_ok(), "waited in vain until {what}");
    }

    pub(crate) async fn submit(&self, runs: usize) -> Vec<RunHandle> {
        stream::iter(0..runs)
            .map(|n| async move { self.client.submit("chain", &json!({ "n": n })).await })
            .buffered(64)
            .try_collect()
            .await
            .unwrap()
    }

    /// Submits so many runs, and as many again whenever they have ended, until it is so. What was submitted.
    pub(crate) async fn submit_until(
        &self,
        runs: usize,
        what: &str,
        is_so: impl AsyncFn(&Self) -> bool,
    ) -> Vec<Vec<RunHandle>> {
        let submitted = Mutex::new(vec![self.submit(runs).await]);
        self.until(what, async |it| {
            if is_so(it).await {
                return true;
            }
            if it.open().await == 0 {
                submitted.lock().await.push(it.submit(runs).await);
            }
            false
        })
        .await;
        submitted.into_inner()
    }

    async fn open(&self) -> i64 {
        self.count("SELECT count(*) FROM task_runs WHERE ended_at IS NULL")
            .await
    }

    pub(crate) async fn all_end(&self, runs: &[RunHandle]) {
        let ended = async {
            for (n, run) in runs.iter().enumerate() {
                assert_eq!(run.result::<usize>().await.unwrap(), n + 10);
            }
        };
        assert!(
            tokio::time::timeout(PATIENCE, ended).await.is_ok(),
            "the runs did not end: {} are open, {} rows are ready",
            self.open().await,
            self.count("SELECT count(*) FROM stack_runs WHERE owner IS NULL AND status IN ('pending', 'pending_resume')")
                .await,
        );
    }

    /// Calls performed: which, by which process, and when (nanoseconds since 1970).
    fn performed(&self) -> Vec<(String, u32, u128)> {
        read_log(self.folder.path())
    }

    pub(crate) fn performed_by(&self, process: u32) -> usize {
        let performed = self.performed();
        performed.iter().filter(|(_, by, _)| *by == process).count()
    }

    /// Nothing wrong in the rows, nothing repeated but what this process did.
    pub(crate) async fn end(mut self, may_repeat: Option<u32>) {
        let mut first: HashMap<String, u32> = HashMap::new();
        for (call, by, _) in self.performed() {
            if let Some(before) = first.insert(call.clone(), by) {
                assert_eq!(
                    Some(before),
                    may_repeat,
                    "{call} was performed again by {by}"
                );
            }
        }
        let violations = self.client.audit().await.unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
        for worker in &mut self.workers {
            drop(worker.stdin.take());
        }
        for worker in &mut self.workers {
            let ended = tokio::time::timeout(PATIENCE, worker.wait()).await;
            ended.expect("a worker stops when it is told to").unwrap();
        }
        self.client.shutdown().await.unwrap();
        let drop = format!("DROP SCHEMA {} CASCADE", self.schema);
        self.sql.batch_execute(&drop).await.unwrap();
    }
}

fn read_log(folder: &Path) -> Vec<(String, u32, u128)> {
    let text = std::fs::read_to_string(folder.join("performed.log")).unwrap_or_default();
    // Whole lines: one may be being written.
    let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
    whole
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (
                words[0].to_owned(),
                words[1].parse().unwrap(),
                words[2].parse().unwrap(),
            )
        })
        .collect()
}
