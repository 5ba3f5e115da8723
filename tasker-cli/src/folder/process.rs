//! A service as a process: started with the variables it may see, and stopped with all that it started.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::Manifest;
use crate::error::CliError;

/// Variables of this process that every program may see.
const COMMON: [&str; 10] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "SystemRoot",
    "TEMP",
    "PATHEXT",
];

/// Starts the service's command, through `tasker become-service` where that lets it end with this process.
pub(super) fn start(
    manifest: &Manifest,
    variables: &BTreeMap<String, String>,
) -> Result<Child, std::io::Error> {
    let mut command = command(manifest)?;
    let passed = COMMON
        .into_iter()
        .chain(manifest.said.pass_env.iter().map(String::as_str));
    command
        .current_dir(&manifest.dir)
        .env_clear()
        .envs(passed.filter_map(|name| Some((name, std::env::var_os(name)?))))
        .envs(&manifest.said.env)
        .envs(variables)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    command.spawn()
}

#[cfg(target_os = "linux")]
fn command(manifest: &Manifest) -> Result<Command, std::io::Error> {
    // Said here and not by the child, so that a program that is not there is an error of the start.
    let program = find(&manifest.said.command[0], &manifest.dir)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([
            "become-service",
            "--parent",
            &std::process::id().to_string(),
            "--",
        ])
        .arg(program)
        .args(&manifest.said.command[1..]);
    Ok(command)
}

#[cfg(not(target_os = "linux"))]
fn command(manifest: &Manifest) -> Result<Command, std::io::Error> {
    let mut command = Command::new(find(&manifest.said.command[0], &manifest.dir)?);
    command.args(&manifest.said.command[1..]);
    Ok(command)
}

/// The program: a path from the service's folder, or a name to be found in `PATH`.
fn find(program: &str, dir: &std::path::Path) -> Result<std::path::PathBuf, std::io::Error> {
    let missing = || {
        std::io::Error::new(
            std::io::ErrorKind::NotFound,
            format!(
                "the program {program:?} is not there; install it, or name another in its service.toml"
            ),
        )
    };
    if program.contains(['/', '\\']) {
        let path = dir.join(program);
        return path
            .is_file()
            .then(|| path.canonicalize())
            .ok_or_else(missing)?;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .flat_map(|dir| ["", ".exe", ".cmd"].map(|end| dir.join(format!("{program}{end}"))))
        .find(|path| path.is_file());
    found.ok_or_else(missing)
}

/// Asks a service and all that it started to end; what has not ended then is killed.
pub(super) async fn stop(child: &mut Child, patience: Duration) {
    signal(child, Ending::Asked);
    if tokio::time::timeout(patience, child.wait()).await.is_err() {
        signal(child, Ending::Killed);
        let _ = child.start_kill();
        let _ = child.wait().await;
    }
}

#[derive(Clone, Copy)]
enum Ending {
    Asked,
    Killed,
}

#[cfg(unix)]
fn signal(child: &Child, ending: Ending) {
    use rustix::process::{Pid, Signal, kill_process_group};
    let group = child.id().and_then(|id| Pid::from_raw(id as i32));
    let signal = match ending {
        Ending::Asked => Signal::TERM,
        Ending::Killed => Signal::KILL,
    };
    if let Some(group) = group {
        // It may have ended meanwhile.
        let _ = kill_process_group(group, signal);
    }
}

#[cfg(not(unix))]
fn signal(_: &Child, _: Ending) {}

/// Replaces this process by a service's program, which gets SIGTERM when the process that started it ends.
/// Answers only when that could not be done.
#[cfg(target_os = "linux")]
#[must_use]
pub fn become_service(parent: u32, program: &[String]) -> CliError {
    use std::os::unix::process::CommandExt;

    use rustix::process::{Signal, getppid, set_parent_process_death_signal};

    let failed = |what: &str, source| CliError::io(what)(source);
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return failed("the end of the server cannot be heard", error.into());
    }
    let is_parent = getppid().is_some_and(|id| id.as_raw_nonzero().get() as u32 == parent);
    if !is_parent {
        return CliError::Usage("the server that started this service has ended".to_owned());
    }
    let Some((program, args)) = program.split_first() else {
        return CliError::Usage("name the program of the service".to_owned());
    };
    let error = std::process::Command::new(program).args(args).exec();
    failed(&format!("{program} could not be started"), error)
}

/// Replaces this process by a service's program: on Linux only.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn become_service(_: u32, _: &[String]) -> CliError {
    CliError::Usage("services end with their server by this way on Linux only".to_owned())
}
