//! `.service-registry.json`: which services the servers of this folder offer, and where.
//!
//! Written whole or not at all (a new file takes the old one's place), by one server at a time (the folder is locked meanwhile).
//! Each server adds its own entries and takes them out at exit; entries of processes that are gone count for nothing.
//! Read by other servers, which call there what they do not offer themselves, and by commands, which leave the work to a server that answers.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tasker_core::Timestamp;
use tasker_proxies::remote::REGISTRY_FILE;

use crate::error::CliError;

/// The services of the reference, in the order of their ports from the base.
pub(crate) const PLACES: [&str; 9] = [
    "deno-executor",
    "simple-stack-processor",
    "task-executor",
    "gapi",
    "keystore",
    "supabase",
    "openai",
    "websearch",
    "admin-debug",
];

/// How long a server may take to say that it is there.
const PROBE: Duration = Duration::from_secs(1);

/// The file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Registry {
    /// When it was written.
    timestamp: String,
    services: Vec<Entry>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: String,
    /// Its port.
    pub(crate) port: u16,
    /// Its address.
    pub(crate) url: String,
    /// The server's process; 0 in a file that somebody else wrote.
    #[serde(default)]
    pub(crate) pid: u32,
    /// Only tasks with a grant may call it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) private: bool,
    /// The database whose runs the server works on, without its password; `None` when it drives none by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) works_on: Option<String>,
}

impl Entry {
    /// An entry of this process.
    pub(crate) fn new(name: &str, port: u16, url: String) -> Self {
        Self {
            name: name.to_owned(),
            port,
            url,
            pid: std::process::id(),
            private: false,
            works_on: None,
        }
    }
}

/// The entries that this process wrote; taken out when it goes.
#[derive(Debug)]
pub(crate) struct Written {
    dir: PathBuf,
}

/// Adds the entries of this process.
pub(crate) fn write(dir: &Path, services: Vec<Entry>, now: Timestamp) -> Result<Written, CliError> {
    let _lock = lock(dir);
    let others = read(dir).into_iter().filter(|entry| !is_mine(entry));
    let services = services.into_iter().chain(others).collect();
    put(dir, services, now.to_string()).map_err(|source| CliError::Io {
        what: format!("{} could not be written", dir.join(REGISTRY_FILE).display()),
        source,
    })?;
    Ok(Written {
        dir: dir.to_owned(),
    })
}

impl Drop for Written {
    fn drop(&mut self) {
        let _lock = lock(&self.dir);
        let Some(file) = parse(&self.dir) else { return };
        let others: Vec<Entry> = file
            .services
            .into_iter()
            .filter(|entry| !is_mine(entry))
            .collect();
        // The next server writes it anew when this fails.
        let _ = if others.is_empty() {
            std::fs::remove_file(self.dir.join(REGISTRY_FILE))
        } else {
            put(&self.dir, others, file.timestamp)
        };
    }
}

fn is_mine(entry: &Entry) -> bool {
    entry.pid == std::process::id()
}

/// Holds off other servers of the folder while the file is changed. Where a folder cannot be locked, the last writer wins.
fn lock(dir: &Path) -> Option<File> {
    let folder = File::open(dir).ok()?;
    folder.lock().ok()?;
    Some(folder)
}

fn put(dir: &Path, services: Vec<Entry>, timestamp: String) -> std::io::Result<()> {
    let file = Registry {
        timestamp,
        services,
    };
    let text = serde_json::to_string_pretty(&file)?;
    let draft = dir.join(format!("{REGISTRY_FILE}.{}", std::process::id()));
    let put = std::fs::write(&draft, text + "\n")
        .and_then(|()| std::fs::rename(&draft, dir.join(REGISTRY_FILE)));
    if put.is_err() {
        // It is of no use to anybody.
        let _ = std::fs::remove_file(&draft);
    }
    put
}

fn parse(dir: &Path) -> Option<Registry> {
    serde_json::from_str(&std::fs::read_to_string(dir.join(REGISTRY_FILE)).ok()?).ok()
}

/// The services of a folder's servers, the newest server's first; none when there is no file that can be read.
pub(crate) fn read(dir: &Path) -> Vec<Entry> {
    let services = parse(dir).unwrap_or_default().services;
    services.into_iter().filter(is_alive).collect()
}

/// Whether the process of an entry is there. One that was written by somebody else is believed.
#[cfg(unix)]
fn is_alive(entry: &Entry) -> bool {
    use rustix::io::Errno;
    use rustix::process::{Pid, test_kill_process};
    let Some(pid) = Pid::from_raw(entry.pid as i32) else {
        return true;
    };
    test_kill_process(pid) != Err(Errno::SRCH)
}

#[cfg(not(unix))]
fn is_alive(_: &Entry) -> bool {
    true
}

/// Whether a server of the folder is there and works on the runs of this database: its task executor answers on `/health`.
pub(crate) async fn is_served(dir: &Path, database: &str) -> bool {
    let Ok(client) = reqwest::Client::builder().timeout(PROBE).no_proxy().build() else {
        return false;
    };
    for entry in read(dir) {
        if entry.name != "task-executor" || entry.works_on.as_deref() != Some(database) {
            continue;
        }
        let answer = client.get(format!("{}/health", entry.url)).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, pid: u32) -> Entry {
        Entry {
            pid,
            ..Entry::new(name, 1, "http://127.0.0.1:1".into())
        }
    }

    #[test]
    fn entries_come_and_go_with_their_server_and_those_of_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_millis(0);
        let mine = entry("task-executor", std::process::id());
        let written = write(dir.path(), vec![mine.clone()], now).unwrap();
        assert_eq!(read(dir.path()), std::slice::from_ref(&mine));
        drop(written);
        let files = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, 0, "neither file nor draft stays");

        // The parent of this process is there as long as this test runs.
        #[cfg(unix)]
        {
            let other = entry("openai", std::os::unix::process::parent_id());
            let gone = entry("websearch", i32::MAX as u32);
            put(dir.path(), vec![other.clone(), gone], String::new()).unwrap();
            assert_eq!(
                read(dir.path()),
                std::slice::from_ref(&other),
                "a dead server offers nothing"
            );
            let written = write(dir.path(), vec![mine.clone()], now).unwrap();
            assert_eq!(read(dir.path()), [mine, other.clone()]);
            drop(written);
            assert_eq!(read(dir.path()), [other]);
        }
    }
}
