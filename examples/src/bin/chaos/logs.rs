//! The two logs that only grow: what the services performed, and whom the parent killed.
#![expect(
    clippy::disallowed_methods,
    reason = "times of different processes are compared: the host's clock is what they share"
)]

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds of the host's clock.
pub(crate) fn now_ns() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos())
}

/// A file to which whole lines are appended, each in one write, from several processes.
pub(crate) struct Log(File);

impl Log {
    pub(crate) fn open(folder: &Path, name: &str) -> io::Result<Self> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join(name))
            .map(Self)
    }

    /// Appends `what`, the process and the time.
    pub(crate) fn line(&self, what: &str, process: u32) -> io::Result<()> {
        let line = format!("{what} {process} {}\n", now_ns());
        (&self.0).write_all(line.as_bytes())
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) process: u32,
    pub(crate) at_ns: u128,
}

/// The lines of a log by their first word, in the order of their times.
pub(crate) fn read(folder: &Path, name: &str) -> io::Result<HashMap<String, Vec<Entry>>> {
    let text = match std::fs::read_to_string(folder.join(name)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let mut entries: HashMap<String, Vec<Entry>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        if let (Some(what), Some(Ok(process)), Some(Ok(at_ns))) = (
            words.next(),
            words.next().map(str::parse),
            words.next().map(str::parse),
        ) {
            let entry = Entry { process, at_ns };
            entries.entry(what.to_owned()).or_default().push(entry);
        }
    }
    for of_one in entries.values_mut() {
        of_one.sort_by_key(|entry| entry.at_ns);
    }
    Ok(entries)
}
