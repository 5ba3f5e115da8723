//! The command line.

use std::path::PathBuf;

/// Which process this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Submits, kills, audits.
    Parent,
    /// The n-th worker.
    Worker(usize),
}

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// The command line, read.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) role: Role,
    pub(crate) kind: Kind,
    /// Worker processes at one time.
    pub(crate) workers: usize,
    /// How long the load lasts.
    pub(crate) seconds: u64,
    /// Mean time between two kills; 0: nobody is killed.
    pub(crate) kill_every_ms: u64,
    /// Mean time between two restarts of the server; 0: it stays up.
    pub(crate) restart_server_every_ms: u64,
    /// What restarts the server and returns when it answers again; `None`: a server of its own is started and restarted.
    pub(crate) restart_command: Option<String>,
    /// Open runs that the load keeps up.
    pub(crate) load: usize,
    /// How long a worker may be silent.
    pub(crate) lease_ms: u64,
    /// The schema in Postgres.
    pub(crate) schema: String,
    /// Only the JSON line is printed.
    pub(crate) json: bool,
    /// Folder of the database file and the logs.
    pub(crate) folder: PathBuf,
    /// The folder is the caller's and stays.
    pub(crate) keep: bool,
}

const USAGE: &str = "usage: chaos [--storage sqlite|postgres] [--workers 3] [--seconds 60] [--kill-every-ms 200] \
    [--restart-server-every-ms 0] [--restart-command COMMAND] [--schema NAME] [--load 150] [--lease-ms 2000, or 5000 with restarts] [--folder PATH] [--json]";

impl Options {
    pub(crate) fn read(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            role: Role::Parent,
            kind: Kind::Sqlite,
            workers: 3,
            seconds: 60,
            kill_every_ms: 200,
            restart_server_every_ms: 0,
            restart_command: None,
            load: 150,
            lease_ms: 0,
            schema: String::new(),
            json: false,
            folder: std::env::temp_dir().join(format!("tasker-chaos-{}", std::process::id())),
            keep: false,
        };
        let mut args = args;
        while let Some(name) = args.next() {
            if name == "--json" {
                options.json = true;
                continue;
            }
            let value = args
                .next()
                .ok_or_else(|| format!("{name} needs a value\n{USAGE}"))?;
            let number = || {
                value
                    .parse::<u64>()
                    .map_err(|_| format!("{name} needs a number, not {value:?}\n{USAGE}"))
            };
            match name.as_str() {
                "--storage" if value == "sqlite" => options.kind = Kind::Sqlite,
                "--storage" if value == "postgres" => options.kind = Kind::Postgres,
                "--workers" => options.workers = number()?.max(1) as usize,
                "--seconds" => options.seconds = number()?,
                "--kill-every-ms" => options.kill_every_ms = number()?,
                "--restart-server-every-ms" => options.restart_server_every_ms = number()?,
                "--restart-command" => options.restart_command = Some(value),
                "--schema" => options.schema = value,
                "--load" => options.load = number()?.max(1) as usize,
                "--lease-ms" => options.lease_ms = number()?,
                "--worker" => options.role = Role::Worker(number()? as usize),
                "--folder" => {
                    options.folder = PathBuf::from(value);
                    options.keep = true;
                }
                _ => return Err(format!("{name} {value} is not understood\n{USAGE}")),
            }
        }
        options.complete()
    }

    /// What follows from the rest.
    fn complete(mut self) -> Result<Self, String> {
        if self.kind == Kind::Sqlite && self.restart_server_every_ms > 0 {
            return Err(format!("SQLite has no server to restart\n{USAGE}"));
        }
        if self.lease_ms == 0 {
            // Workers that live must not lose theirs, for then calls are repeated though nobody was killed: a lease outlives a
            // moment in which a busy machine gives a process no time, and a restart of the server.
            self.lease_ms = if self.restart_server_every_ms > 0 {
                5_000
            } else {
                2_000
            };
        }
        if self.schema.is_empty() {
            // One a run, so that two of these do not meet.
            self.schema = format!("chaos_{}", std::process::id());
        }
        Ok(self)
    }

    /// The command line of the n-th worker.
    pub(crate) fn of_worker(&self, number: usize) -> Vec<String> {
        let kind = match self.kind {
            Kind::Sqlite => "sqlite",
            Kind::Postgres => "postgres",
        };
        [
            ("--storage", kind.to_owned()),
            ("--lease-ms", self.lease_ms.to_string()),
            ("--schema", self.schema.clone()),
            ("--folder", self.folder.display().to_string()),
            ("--worker", number.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }
}
