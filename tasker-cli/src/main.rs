//! The program `tasker`.

use std::process::ExitCode;

use tasker_cli::args::{self, Command};
use tasker_cli::become_service;

fn main() -> ExitCode {
    // First of all: this program is also the one that runs in its own sandbox processes.
    tasker_core::wall::child_main();
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    if let Command::BecomeService { parent, program } = &cli.command {
        let error = become_service(*parent, program);
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the threads of this process could not be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(tasker_cli::run(cli));
    // A thread that still reads standard input must not hold the process.
    runtime.shutdown_background();
    ExitCode::from(code)
}
