//! `tasker serve` as strangers meet it: the requests of the earlier system, services of a folder, wrong senders, kills.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "../kit/mod.rs"]
mod kit;

mod doors;
mod folder;
mod kills;
mod metrics;
mod openapi;
mod operator;
mod reference;
mod resume;
mod wall;

/// Where programs are found: the services of a folder need one.
fn path() -> String {
    std::env::var("PATH").unwrap()
}
