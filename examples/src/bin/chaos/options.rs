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
    /// Open runs that the load keeps up.
    pub(crate) load: usize,
    /// How long a worker may be silent.
    pub(crate) lease_ms: u64,
    /// Only the JSON line is printed.
    pub(crate) json: bool,
    /// Folder of the database file and the logs.
    pub(crate) folder: PathBuf,
    /// The folder is the caller's and stays.
    pub(crate) keep: bool,
}

const USAGE: &str = "usage: chaos [--storage sqlite|postgres] [--workers 3] [--seconds 60] [--kill-every-ms 200] \
    [--load 60] [--lease-ms 600] [--folder PATH] [--json]";

impl Options {
    pub(crate) fn read(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            role: Role::Parent,
            kind: Kind::Sqlite,
            workers: 3,
            seconds: 60,
            kill_every_ms: 200,
            load: 60,
            lease_ms: 600,
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
        Ok(options)
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
            ("--folder", self.folder.display().to_string()),
            ("--worker", number.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }
}
