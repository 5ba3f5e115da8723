//! The program `tasker`.

use std::process::ExitCode;

use clap::Parser;
use tasker_cli::args::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
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
