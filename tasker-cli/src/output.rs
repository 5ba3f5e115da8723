//! Answers on standard output, everything else on standard error.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use serde::Serialize;
use serde_json::json;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command};
use crate::config::Config;
use crate::error::CliError;
use crate::redact::Redacting;
use crate::secrets;

/// How to answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// In JSON, or for people.
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether answers are JSON.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// Answers with a value in JSON, or with a text for people. A reader that has gone away is no error.
    pub(crate) fn answer(
        self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        if self.json {
            Self::line(&to_text(value)?)
        } else {
            let text = text();
            if text.is_empty() {
                Ok(())
            } else {
                Self::line(&text)
            }
        }
    }

    /// A line on standard output.
    pub(crate) fn line(line: &str) -> Result<(), CliError> {
        let mut out = std::io::stdout().lock();
        match out
            .write_all(line.as_bytes())
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush())
        {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(CliError::io("standard output could not be written")(error))
            }
            _ => Ok(()),
        }
    }

    /// A remark for people, on standard error.
    pub(crate) fn note(self, text: impl Display) {
        if !self.json {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Why it did not work, on standard error.
    pub(crate) fn error(self, error: &CliError) {
        let mut stderr = std::io::stderr();
        let text = error.to_string();
        let known = secrets::known();
        let text = known.take_out(&text);
        let _ = if self.json {
            writeln!(
                stderr,
                "{}",
                json!({ "error": text, "exitCode": error.exit_code() })
            )
        } else {
            writeln!(stderr, "error: {text}")
        };
    }
}

/// A value as JSON text.
pub(crate) fn to_text(value: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string(value)
        .map_err(|error| CliError::io("the answer could not be written as JSON")(error.into()))
}

/// Columns with two blanks between them.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let lines = rows.iter().map(|row| {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<String>>().join("\n")
}

/// Starts logging to standard error: `RUST_LOG`, else `--debug` or `DEBUG=true`, else `LOG_LEVEL`; `tasker serve` says at least what it serves.
pub(crate) fn log_to_stderr(config: &Config, cli: &Cli) -> Result<(), CliError> {
    let debug =
        cli.global.debug || std::env::var("DEBUG").is_ok_and(|text| text == "true" || text == "1");
    let level = config.text("log.level");
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => filter,
        _ if debug => "info,tasker_core=debug,tasker_cli=debug".to_owned(),
        _ if matches!(cli.command, Command::Serve(_)) && level == "warn" => {
            "warn,tasker_cli=info".to_owned()
        }
        _ => level.to_owned(),
    };
    let filter = EnvFilter::try_new(&filter).map_err(|_| {
        config.wrong(
            "log.level",
            "is no level; levels are error, warn, info, debug and trace",
        )
    })?;
    let known = secrets::known();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Redacting::new(std::io::stderr(), known.clone()));
    // A second start in one process (embedders, tests) keeps the first subscriber.
    let _ = match config.log_format() {
        "json" => subscriber.json().try_init(),
        "text" => subscriber
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        _ => return Err(config.wrong("log.format", "is no format; formats are text and json")),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["a".to_owned(), "1".to_owned()],
            ["långt".to_owned(), "2".to_owned()],
        ];
        assert_eq!(columns(&rows), "a      1\nlångt  2");
    }
}
