//! `.service-registry.json`: which services this folder's `tasker serve` offers, and where.
//!
//! Written whole or not at all (a new file takes the old one's place), removed at exit by the process that wrote it, read by
//! the other commands: they leave the work to a server that answers.

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
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Registry {
    /// When it was written.
    pub(crate) timestamp: String,
    /// The process that wrote it.
    #[serde(default)]
    pub(crate) pid: u32,
    /// The database whose runs it works on, without its password; `None` when it drives none by itself.
    #[serde(default)]
    pub(crate) works_on: Option<String>,
    /// The services.
    pub(crate) services: Vec<Entry>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: String,
    /// Its port.
    pub(crate) port: u16,
    /// Its address.
    pub(crate) url: String,
}

/// The file as this process wrote it; removed when it goes.
#[derive(Debug)]
pub(crate) struct Written {
    path: PathBuf,
    pid: u32,
}

/// Writes the file.
pub(crate) fn write(
    dir: &Path,
    services: Vec<Entry>,
    works_on: Option<String>,
    now: Timestamp,
) -> Result<Written, CliError> {
    let path = dir.join(REGISTRY_FILE);
    let pid = std::process::id();
    let file = Registry {
        timestamp: now.to_string(),
        pid,
        works_on,
        services,
    };
    let io = |source: std::io::Error| CliError::Io {
        what: format!("{} could not be written", path.display()),
        source,
    };
    let text = serde_json::to_string_pretty(&file).map_err(|error| io(error.into()))?;
    let draft = dir.join(format!("{REGISTRY_FILE}.{pid}"));
    std::fs::write(&draft, text + "\n").map_err(io)?;
    std::fs::rename(&draft, &path).map_err(io)?;
    Ok(Written { path, pid })
}

impl Drop for Written {
    fn drop(&mut self) {
        let mine = parse(&self.path).is_some_and(|file| file.pid == self.pid);
        if mine {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The file of a folder; `None` when there is none that can be read.
pub(crate) fn read(dir: &Path) -> Option<Registry> {
    parse(&dir.join(REGISTRY_FILE))
}

fn parse(path: &Path) -> Option<Registry> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

/// Whether the folder's server is there and works on the runs of this database: its task executor answers on `/health`.
pub(crate) async fn is_served(dir: &Path, database: &str) -> bool {
    let Some(file) = read(dir).filter(|file| file.works_on.as_deref() == Some(database)) else {
        return false;
    };
    let Some(entry) = file
        .services
        .into_iter()
        .find(|entry| entry.name == "task-executor")
    else {
        return false;
    };
    let Ok(client) = reqwest::Client::builder().timeout(PROBE).no_proxy().build() else {
        return false;
    };
    // 401 is an answer too: a server is there, and has a token.
    client
        .get(format!("{}/health", entry.url))
        .send()
        .await
        .is_ok_and(|answer| answer.status().is_success() || answer.status().as_u16() == 401)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_goes_with_its_writer_and_another_writers_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Entry {
            name: "task-executor".into(),
            port: 1,
            url: "http://127.0.0.1:1".into(),
        };
        let written = write(
            dir.path(),
            vec![entry.clone()],
            None,
            Timestamp::from_millis(0),
        )
        .unwrap();
        assert_eq!(read(dir.path()).unwrap().services, [entry]);
        let other = std::fs::read_to_string(dir.path().join(REGISTRY_FILE))
            .unwrap()
            .replace(&std::process::id().to_string(), "1");
        drop(written);
        assert!(read(dir.path()).is_none());
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            0,
            "no draft stays"
        );
        let written = write(dir.path(), Vec::new(), None, Timestamp::from_millis(0)).unwrap();
        std::fs::write(dir.path().join(REGISTRY_FILE), other).unwrap();
        drop(written);
        assert!(read(dir.path()).is_some(), "another process wrote it since");
    }
}
