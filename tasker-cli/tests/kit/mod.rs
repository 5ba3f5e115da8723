//! The built binary in a folder of its own.
#![allow(dead_code, reason = "each test file uses a part of the kit")]

pub(crate) mod server;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tasker_adaptor_sqlite::rusqlite;

/// A folder to work in. No variable of the surrounding process is seen there.
pub(crate) struct Folder {
    dir: tempfile::TempDir,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tasker"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn tasker(&self, args: &[&str]) -> Said {
        Said::of(&self.command(args).output().unwrap())
    }

    /// Runs a command that has to work, and gives its standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let said = self.tasker(args);
        assert_eq!(said.code, 0, "{args:?}: {said:?}");
        said.out
    }

    /// The same in JSON.
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.ok(&args)).unwrap()
    }

    /// The SQLite file, past every program that works on it.
    pub(crate) fn file(&self) -> rusqlite::Connection {
        let file = rusqlite::Connection::open(self.path().join("tasker.db")).unwrap();
        file.busy_timeout(std::time::Duration::from_mins(1))
            .unwrap();
        file
    }

    /// Waits until a run has made something: its task sleeps.
    pub(crate) fn sleeps(&self, run: &str) {
        wait_until(|| {
            let trace = self.json(&["trace", run]);
            let made = trace["root"]["children"].as_array();
            made.is_some_and(|made| !made.is_empty())
        });
    }

    /// Ends every sleep of every task now: a test that looks at a run that sleeps has all the time that it needs, for the run sleeps for
    /// an hour.
    pub(crate) fn wake_sleepers(&self) {
        let sql = "UPDATE stack_runs SET due_at = 0 WHERE kind = 'timer' AND status = 'pending'";
        let woken = self.file().execute(sql, []).unwrap();
        assert_ne!(woken, 0, "nobody sleeps");
    }

    /// With a text on standard input and variables.
    pub(crate) fn with(&self, args: &[&str], stdin: &str, variables: &[(&str, &str)]) -> Said {
        let mut child = self
            .command(args)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(stdin.as_bytes())
            .unwrap();
        Said::of(&child.wait_with_output().unwrap())
    }
}

impl Said {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout.clone())
                .unwrap()
                .trim_end()
                .to_owned(),
            err: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }
}

/// Waits for a condition, at most two minutes: only what never becomes so meets that, on however busy a machine.
#[expect(
    clippy::disallowed_methods,
    reason = "another process is waited for, and nothing of it can be heard but by looking"
)]
pub(crate) fn wait_until(mut holds: impl FnMut() -> bool) {
    for _ in 0..2_400 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("it did not become so within two minutes");
}
