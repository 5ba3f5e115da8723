//! The commands, one file each for a concern.

mod catalogue;
mod database;
mod init;
mod keystore;
mod logs;
pub(crate) mod publish;
mod run;
mod runs;
mod service;
mod trace;
mod tree;

use std::io::Read;
use std::path::PathBuf;

use clap::CommandFactory;
use serde_json::json;
use tasker_core::{Engine, EngineBuilder, Json};

use crate::args::{Cli, Command};
use crate::config::Config;
use crate::error::CliError;
use crate::host;
use crate::output::{Output, columns};
use crate::registry;

/// Where a command works, and how it answers.
#[derive(Clone, Debug)]
pub(crate) struct Here {
    /// The settings.
    pub(crate) config: Config,
    /// The working directory.
    pub(crate) dir: PathBuf,
    /// How to answer.
    pub(crate) output: Output,
}

impl Here {
    /// An engine that submits and reads, and runs nothing.
    pub(crate) async fn client(&self) -> Result<Engine, CliError> {
        Ok(self.builder().await?.client().await?)
    }

    /// Whether a server of this folder does the work on this database.
    pub(crate) async fn is_served(&self) -> Result<bool, CliError> {
        let database = host::Database::of(&self.config)?.shown();
        Ok(registry::is_served(&self.dir, &database).await)
    }

    async fn builder(&self) -> Result<EngineBuilder, CliError> {
        let storage = host::storage(&self.config).await?;
        let peers = host::peers(&self.config, &self.dir, |_| true)?;
        host::builder(&self.config, storage, &peers)
    }

    /// An engine that works.
    pub(crate) async fn worker(&self) -> Result<Engine, CliError> {
        host::start(self.builder().await?).await
    }
}

/// Does it.
pub(crate) async fn perform(command: Command, here: Here) -> Result<(), CliError> {
    match command {
        Command::Init { dir } => init::perform(&here, &dir),
        Command::Publish(args) => publish::perform(&here, &args).await,
        Command::Tasks => catalogue::tasks(&here).await,
        Command::Schema { name, format } => catalogue::schema(&here, &name, format).await,
        Command::Types { out } => catalogue::types(&here, out).await,
        Command::Run(args) => run::perform(&here, &args.name, &args.how).await,
        Command::Task(args) => match &args.task {
            Some(name) => run::perform(&here, name, &args.how).await,
            None => catalogue::tasks(&here).await,
        },
        Command::Runs(args) => runs::list(&here, &args).await,
        Command::Status { id, poll } => runs::status(&here, id, poll).await,
        Command::Logs { id, follow } => logs::perform(&here, id, follow).await,
        Command::Trace { id } => trace::perform(&here, id).await,
        Command::Cancel { id } => runs::cancel(&here, id).await,
        Command::Signal { id, name, payload } => runs::signal(&here, id, &name, &payload).await,
        Command::Unblock(args) => runs::unblock(&here, args).await,
        Command::Db { what } => database::perform(&here, what).await,
        Command::Keystore { what } => keystore::perform(&here, what).await,
        Command::Service { what } => service::perform(&here, &what),
        Command::BecomeService { parent, program } => {
            Err(crate::folder::become_service(parent, &program))
        }
        Command::ExecuteOnce { .. } => Err(CliError::Usage(
            "a step of the executor is done before anything else is started".to_owned(),
        )),
        Command::Config => here
            .output
            .answer(&here.config.json(), || columns(&here.config.lines())),
        Command::Serve(args) => crate::serve::perform(here, &args).await,
        Command::Completions { shell } => {
            // Into memory first: a reader that goes away is no error.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tasker", &mut script);
            let script = String::from_utf8_lossy(&script).into_owned();
            let answer = json!({ "shell": shell.to_string(), "script": script });
            here.output.answer(&answer, || script.trim_end().to_owned())
        }
    }
}

/// A JSON argument: the text itself, the text of `@FILE`, or standard input for `-`.
pub(crate) fn json_argument(what: &str, text: &str) -> Result<Json, CliError> {
    let (from, text) = match (text, text.strip_prefix('@')) {
        ("-", _) => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(CliError::io("standard input could not be read"))?;
            ("standard input".to_owned(), text)
        }
        (_, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .map_err(CliError::io(format!("{path} could not be read for {what}")))?;
            (path.to_owned(), text)
        }
        _ => (what.to_owned(), text.to_owned()),
    };
    Json::parse(text).map_err(|error| CliError::Usage(format!("{from}: {error}")))
}
