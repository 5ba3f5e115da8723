//! The server below the runs, restarted as after a crash.

use std::error::Error;
use std::process::Stdio;
use std::time::Duration;

use rand::RngExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::logs::Log;
use crate::options::Options;

/// The log of the restarts: when each began, and when the server answered again.
pub(crate) const RESTARTED: &str = "restarted.log";
/// How long a server may take to start.
const START: Duration = Duration::from_mins(2);

/// Something that can be restarted.
pub(crate) enum Server {
    /// One of its own: `.config/postgres.sh serve`.
    Own(Box<OwnServer>),
    /// Somebody's, by a command.
    Command(String),
}

/// A child that restarts its server for each line it reads.
pub(crate) struct OwnServer {
    url: String,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Server {
    /// The server that these options ask for, if it is to be restarted.
    pub(crate) async fn start(options: &Options) -> Result<Option<Self>, Box<dyn Error>> {
        if options.restart_server_every_ms == 0 {
            return Ok(None);
        }
        if let Some(command) = &options.restart_command {
            return Ok(Some(Self::Command(command.clone())));
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../.config/postgres.sh");
        let mut child = Command::new("bash")
            .args([script, "serve"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("the script has no output")?;
        let mut output = BufReader::new(output).lines();
        let url = timeout(START, output.next_line())
            .await??
            .ok_or("the server did not start; the reason is above")?;
        Ok(Some(Self::Own(Box::new(OwnServer {
            url,
            input,
            output,
            child,
        }))))
    }

    /// Where it is, if that is not known otherwise.
    pub(crate) fn url(&self) -> Option<&str> {
        match self {
            Self::Own(own) => Some(&own.url),
            Self::Command(_) => None,
        }
    }

    /// Restarts it again and again until `end`.
    pub(crate) async fn restart_at_random(
        &mut self,
        options: &Options,
        end: Instant,
    ) -> Result<(), Box<dyn Error>> {
        let log = Log::open(&options.folder, RESTARTED)?;
        loop {
            let mean = options.restart_server_every_ms;
            let pause = rand::rng().random_range(mean / 2..=mean + mean / 2);
            sleep(Duration::from_millis(pause)).await;
            if Instant::now() >= end {
                return Ok(());
            }
            log.line("begin", 0)?;
            timeout(START, self.restart()).await??;
            log.line("end", 0)?;
        }
    }

    async fn restart(&mut self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Command(command) => {
                let status = Command::new("sh").args(["-c", command]).status().await?;
                if !status.success() {
                    return Err(format!("{command}: {status}").into());
                }
            }
            Self::Own(own) => {
                let input = own.input.as_mut().ok_or("the server was stopped")?;
                input.write_all(b"restart\n").await?;
                own.output
                    .next_line()
                    .await?
                    .ok_or("the server did not come back; the reason is above")?;
            }
        }
        Ok(())
    }

    /// Stops what was started.
    pub(crate) async fn stop(self) -> Result<(), Box<dyn Error>> {
        if let Self::Own(mut own) = self {
            drop(own.input.take());
            own.child.wait().await?;
        }
        Ok(())
    }
}
