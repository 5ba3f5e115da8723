//! The command line `tasker` and its HTTP services.
//!
//! What is here: commands ([`run`]) and what an embedder mounts in a server of its own ([`http::router`]). What is not: any rule
//! of how runs work; those are the engine's. Only this crate knows a database and the engine together.
//!
//! Invariants: answers go to standard output, everything else to standard error · a secret is never an argument and never shown ·
//! the process ends with a documented exit code · nothing listens beyond loopback without a token, unless a flag says so.

pub mod args;
mod command;
mod config;
mod error;
mod folder;
mod host;
pub mod http;
mod output;
mod overheard;
mod redact;
mod registry;
mod secrets;
mod serve;
mod signals;
mod view;

pub use config::{Config, Layers, Source};
pub use error::CliError;
pub use folder::become_service;

use args::{Cli, Command};
use output::Output;

/// Does what the command line asks, in the working directory. Answers the exit code.
pub async fn run(cli: Cli) -> u8 {
    let output = Output::new(cli.global.json);
    match start(cli, output).await {
        Ok(()) => 0,
        Err(error) => {
            output.error(&error);
            error.exit_code()
        }
    }
}

async fn start(cli: Cli, output: Output) -> Result<(), CliError> {
    let dir =
        std::env::current_dir().map_err(CliError::io("the working directory could not be read"))?;
    let mut layers = Layers::read(&dir)?;
    layers.flag("--database", "database", cli.global.database.as_ref());
    layers.flag("--wall", "wall", cli.global.wall);
    if let Command::Serve(serve) = &cli.command {
        layers.flag("--port", "serve.port", serve.port);
        layers.flag("--bind", "serve.bind", serve.bind.as_ref());
        let services = (!serve.services.is_empty()).then(|| serve.services.join(","));
        layers.flag("--services", "serve.services", services);
        let origins = (!serve.cors_origins.is_empty()).then(|| serve.cors_origins.join(","));
        layers.flag("--cors-origins", "serve.cors_origins", origins);
    }
    if let Command::Publish(publish) = &cli.command {
        layers.flag(
            "--dir",
            "tasks",
            publish.dir.as_ref().map(|dir| dir.display()),
        );
    }
    let config = Config::new(&layers)?;
    secrets::hide_settings(&config.secrets());
    output::log_to_stderr(&config, &cli)?;
    let here = command::Here {
        config,
        dir,
        output,
    };
    command::perform(cli.command, here).await
}
