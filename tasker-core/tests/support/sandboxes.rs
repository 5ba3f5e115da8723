//! The children of a test's engines, as the system shows them.

#![allow(dead_code, reason = "each test program uses its part")]

use std::process::Command;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

/// No test waits longer than this for anything: only what never comes meets it, on however busy a machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(10);

/// One test with children at a time: they are told apart by being children of this process.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

pub(crate) fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "children are watched in real time, and so are they here"
    )]
    Instant::now()
}

/// The sandboxes that this process has started and that live: their ids.
pub(crate) fn sandboxes_of(parent: u32) -> Vec<u32> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|id: &u32| {
            stat(*id).is_some_and(|stat| stat[0] != "Z" && stat[1] == parent.to_string())
                && std::fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| {
                    line.windows(21)
                        .any(|part| part == b"tasker-sandbox-child\0")
                })
        })
        .collect()
}

/// What stands behind the name in `/proc/ID/stat`: state, parent …
pub(crate) fn stat(id: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

/// Time on the processor, in hundredths of a second.
pub(crate) fn cpu(id: u32) -> u64 {
    stat(id).map_or(0, |stat| {
        stat[11].parse::<u64>().unwrap() + stat[12].parse::<u64>().unwrap()
    })
}

pub(crate) fn kill(id: u32) {
    signal(id, "KILL");
}

pub(crate) fn signal(id: u32, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &id.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
        "never: {what}"
    );
}

pub(crate) async fn the_sandbox() -> u32 {
    let me = std::process::id();
    until("one sandbox", || sandboxes_of(me).len() == 1).await;
    sandboxes_of(me)[0]
}
