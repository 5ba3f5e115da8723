//! Chaos: several worker processes under load on one database, killed with SIGKILL at random and restarted, and an audit at the end.
//!
//! ```text
//! cargo run -p tasker-examples --bin chaos -- --storage sqlite --workers 3 --seconds 60 --kill-every-ms 200 --json
//! ```
//!
//! `--storage postgres` reads `TASKER_TEST_POSTGRES_URL`, then `DATABASE_URL`; it works in a schema of its own.
//! `--restart-server-every-ms 5000` also crashes the server again and again: one that it starts itself (`.config/postgres.sh serve`), or
//! that of the environment by `--restart-command 'pg_ctl -D … -m immediate restart'`, which returns when the server answers.
//! The services keep a log of their own: one line a performed call, appended in one write. The parent logs whom it killed, and when.
//! The last line is one JSON object:
//! `{"submitted","completed","failed","calls","repeated","repeated_explained","wrong","left","stuck","kills"}`. A call is
//! *repeated* when it was performed more than once; that is *explained* when each performance but the last is followed by the kill of the
//! process that did it, before the next (or by a restart of the server for which the lease was too short; standard error tells of those). Exit code 0: all repeats are explained, and nothing is wrong, left or stuck.

mod audit;
mod logs;
mod options;
mod parent;
mod server;
mod store;
mod tasks;
mod worker;

use options::{Options, Role};

#[tokio::main]
async fn main() {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("chaos: {problem}");
            std::process::exit(2);
        }
    };
    let done = match options.role {
        Role::Parent => parent::run(&options).await,
        Role::Worker(number) => worker::run(&options, number).await.map(|()| true),
    };
    match done {
        Ok(true) => {}
        Ok(false) => std::process::exit(1),
        Err(error) => {
            eprintln!("chaos: {error}");
            std::process::exit(2);
        }
    }
}
