//! A disk that fails under a running engine: a sync that fails and loses what it should have kept, a full disk, reads that fail.
//!
//! The engine runs in a process of its own, with `disk/shim.c` preloaded, which makes the disk of its database fail while the test wants
//! it to. What was acknowledged before is there after, whether the process lives through it or is killed in its midst;
//! a second process finds the file sound.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

/// Elsewhere than on Linux nothing is preloaded: the loader and the calls of the disk are others.
#[cfg(not(target_os = "linux"))]
#[test]
#[ignore = "the failing disk is a library preloaded by Linux's loader"]
fn a_failing_disk_is_waited_out() {}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use futures::FutureExt;
    use tasker_adaptor_sqlite::SqliteStorage;
    use tasker_core::adaptor::Maintenance;
    use tasker_core::testing::Stub;
    use tasker_core::{Engine, Json, RunError, RunFilter, RunStatus};

    const FOLDER: &str = "TASKER_DISK";
    const PATIENCE: Duration = Duration::from_mins(5);
    const CALLS: usize = 4;
    /// Runs at one time.
    const OPEN: usize = 8;
    const TASK: &str = r"module.exports = async (input, { tools }) => {
        let n = input;
        for (let i = 0; i < 4; i++) n = await tools.svc.step(n + 1);
        return n;
    }";

    /// The process under the failing disk. It submits run after run and says on its output what it was told, until its input ends.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "the program that the other tests start"]
    async fn host() {
        let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
        let log = folder.join("log");
        let stub = Stub::new("svc").answer_later("step", move |call| {
            let mut options = std::fs::OpenOptions::new();
            let mut log = options.create(true).append(true).open(&log).unwrap();
            let line = format!("{}\n", call.idempotency_key);
            log.write_all(line.as_bytes()).unwrap();
            async move { call.arg::<Json>(0) }.boxed()
        });
        let storage = SqliteStorage::options(folder.join("tasker.db"))
            .busy_timeout(Duration::from_millis(300));
        let engine = Engine::builder()
            .storage(storage.open().await.unwrap())
            .service(stub)
            .poll_ms(50)
            // Nobody loses it: a disk that is away for long, or a busy machine, must not look like death.
            .lease_ms(600_000)
            .keep_rows_ms(u64::MAX)
            .start()
            .await
            .unwrap();
        engine.publish(TASK).name("steps").await.unwrap();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_line(&mut String::new());
            let _ = stop.send(true);
        });
        let health = tokio::spawn(tell_health(engine.clone()));
        let submitting = (0..OPEN).map(|first| {
            let (engine, stopped) = (engine.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut n = first;
                while !*stopped.borrow() {
                    one_run(&engine, n).await;
                    n += OPEN;
                }
            })
        });
        for task in submitting.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        health.abort();
        engine.shutdown().await.unwrap();
        println!("\nstopped");
    }

    /// Submits until it is acknowledged, and waits for the result.
    async fn one_run(engine: &Engine, n: usize) {
        let handle = loop {
            match engine
                .submit("steps", &n)
                .idempotency_key(n.to_string())
                .await
            {
                Ok(handle) => break handle,
                // As a host does: later, under the same key.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        println!("\nsubmitted {n}");
        let result = loop {
            match handle.result::<usize>().await {
                Ok(result) => break result,
                Err(RunError::Engine(error)) => {
                    // The run goes on; only the question was not answered.
                    println!("\nunanswered {error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("run {n}: {error}"),
            }
        };
        assert_eq!(result, n + CALLS);
        println!("\ncompleted {n}");
    }

    async fn tell_health(engine: Engine) {
        let mut was_well = true;
        loop {
            let problem = engine.health().storage;
            if was_well != problem.is_none() {
                was_well = problem.is_none();
                println!(
                    "\n{} {}",
                    if was_well { "well" } else { "ill" },
                    problem.unwrap_or_default()
                );
            }
            // Health has no signal.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The shim as a library, built by the compiler that builds `QuickJS`.
    fn shim(folder: &Path) -> PathBuf {
        let library = folder.join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disk/shim.c");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let built = Command::new(&compiler)
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
            .arg(&library)
            .arg(source)
            .args(["-ldl", "-lpthread"])
            .output()
            .unwrap_or_else(|error| {
                panic!("{compiler}, which also builds QuickJS, cannot be run: {error}")
            });
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        library
    }

    /// The process, and what it said.
    struct Host {
        child: Child,
        lines: Receiver<String>,
        submitted: BTreeSet<usize>,
        completed: BTreeSet<usize>,
    }

    impl Host {
        fn start(folder: &Path) -> Self {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["linux::host", "--exact", "--ignored", "--nocapture"])
                .env(FOLDER, folder)
                .env("LD_PRELOAD", shim(folder))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let output = BufReader::new(child.stdout.take().unwrap());
            let (line, lines) = channel();
            std::thread::spawn(move || {
                for text in output.lines().map_while(Result::ok) {
                    let _ = line.send(text);
                }
            });
            Self {
                child,
                lines,
                submitted: BTreeSet::new(),
                completed: BTreeSet::new(),
            }
        }

        /// Listens until it says this; answers the line. Lines begin at line starts: the test harness writes to the same output.
        fn until(&mut self, word: &str) -> String {
            loop {
                let line = self.lines.recv_timeout(PATIENCE);
                let line = line.unwrap_or_else(|error| panic!("it never said {word:?}: {error}"));
                self.note(&line);
                if line.starts_with(word) {
                    return line;
                }
            }
        }

        /// Listens until so many more runs are completed.
        fn until_completed(&mut self, more: usize) {
            let enough = self.completed.len() + more;
            while self.completed.len() < enough {
                self.until("completed");
            }
        }

        fn note(&mut self, line: &str) {
            match line.split_once(' ') {
                Some(("submitted", n)) => drop(self.submitted.insert(n.parse().unwrap())),
                Some(("completed", n)) => drop(self.completed.insert(n.parse().unwrap())),
                _ => {}
            }
        }

        fn kill(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
            while let Ok(line) = self.lines.recv() {
                self.note(&line);
            }
        }

        fn stop(&mut self) {
            drop(self.child.stdin.take());
            self.until("stopped");
            assert!(self.child.wait().unwrap().success());
        }
    }

    impl Drop for Host {
        /// A test that failed leaves no process behind.
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// What the file says to a process whose disk is well; answers how often each call was performed.
    async fn look(folder: &Path, host: &Host) -> BTreeMap<String, usize> {
        let path = folder.join("tasker.db");
        let file = rusqlite::Connection::open(&path).unwrap();
        let says: String = file
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(says, "ok");
        drop(file);
        let storage = SqliteStorage::open(&path).await.unwrap();
        assert_eq!(storage.audit().await.unwrap(), Vec::new());
        let client = Engine::builder().storage(storage).client().await.unwrap();
        let mut runs = BTreeMap::new();
        for run in client
            .runs(&RunFilter::default(), 100_000)
            .await
            .unwrap()
            .runs
        {
            let n: usize = run.input.to().unwrap();
            assert!(runs.insert(n, run).is_none(), "{n} was submitted twice");
        }
        for n in &host.submitted {
            assert!(runs.contains_key(n), "run {n} was acknowledged and is gone");
        }
        for n in &host.completed {
            assert_eq!(
                runs[n].status,
                RunStatus::Completed,
                "the end of run {n} was told and is gone"
            );
        }
        let log = std::fs::read_to_string(folder.join("log")).unwrap();
        let mut performed = BTreeMap::new();
        for key in log.lines() {
            *performed.entry(key.to_owned()).or_default() += 1;
        }
        performed
    }

    async fn a_fault_is_waited_out(fault: &str, said: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let flag = folder.path().join(format!("fail-{fault}"));
        let mut host = Host::start(folder.path());
        host.until_completed(20);
        for _ in 0..2 {
            std::fs::write(&flag, "").unwrap();
            let ill = host.until("ill");
            assert!(said.iter().any(|word| ill.contains(word)), "{ill}");
            std::fs::remove_file(&flag).unwrap();
            host.until("well");
            host.until_completed(20);
        }
        host.stop();
        assert_eq!(host.submitted, host.completed);
        let performed = look(folder.path(), &host).await;
        assert_eq!(performed.len(), host.completed.len() * CALLS);
        assert!(
            performed.values().all(|times| *times == 1),
            "nothing was lost, so nothing is repeated"
        );
    }

    async fn a_fault_and_a_kill_lose_nothing(fault: &str) {
        let folder = tempfile::tempdir().unwrap();
        let flag = folder.path().join(format!("fail-{fault}"));
        let mut host = Host::start(folder.path());
        host.until_completed(20);
        std::fs::write(&flag, "").unwrap();
        host.until("ill");
        host.kill();
        std::fs::remove_file(&flag).unwrap();
        look(folder.path(), &host).await;
        // Nobody waits for the lease of a process that is known to be dead.
        let file = rusqlite::Connection::open(folder.path().join("tasker.db")).unwrap();
        file.execute("UPDATE workers SET expires_at = 0", [])
            .unwrap();
        drop(file);
        // The next process takes up what is open, and its own.
        let before = host;
        let mut host = Host::start(folder.path());
        host.submitted.clone_from(&before.submitted);
        host.until_completed(20);
        host.stop();
        look(folder.path(), &host).await;
        look(folder.path(), &before).await;
    }

    #[tokio::test]
    async fn a_failed_sync_is_waited_out_and_takes_back_nothing_that_was_acknowledged() {
        a_fault_is_waited_out("sync", &["cannot be read or written"]).await;
    }

    #[tokio::test]
    async fn a_failed_sync_and_a_kill_lose_nothing_that_was_acknowledged() {
        a_fault_and_a_kill_lose_nothing("sync").await;
    }

    #[tokio::test]
    async fn a_disk_without_space_is_waited_out() {
        a_fault_is_waited_out("write", &["space", "full"]).await;
    }

    #[tokio::test]
    async fn a_disk_without_space_and_a_kill_lose_nothing_that_was_acknowledged() {
        a_fault_and_a_kill_lose_nothing("write").await;
    }

    #[tokio::test]
    async fn a_disk_that_became_read_only_is_waited_out() {
        // The first to notice may be a write of an open file, or the next opening.
        a_fault_is_waited_out("protect", &["read-only", "cannot be read or written"]).await;
    }

    #[tokio::test]
    async fn another_process_that_holds_the_file_is_waited_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = Host::start(folder.path());
        host.until_completed(20);
        let other = rusqlite::Connection::open(folder.path().join("tasker.db")).unwrap();
        other.busy_timeout(PATIENCE).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let ill = host.until("ill");
        assert!(ill.contains("busy"), "{ill}");
        other.execute_batch("ROLLBACK").unwrap();
        host.until("well");
        host.until_completed(20);
        host.stop();
        let performed = look(folder.path(), &host).await;
        assert!(performed.values().all(|times| *times == 1));
    }

    #[tokio::test]
    async fn reads_that_fail_are_waited_out() {
        a_fault_is_waited_out("read", &["cannot be"]).await;
    }
}
