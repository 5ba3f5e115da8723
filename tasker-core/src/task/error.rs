//! What can be wrong with a task when it is published.

use std::path::PathBuf;

/// Why a task was refused. Nothing was stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The text is not JavaScript.
    #[error("{file}:{line}:{column}: {message}")]
    Syntax {
        /// File as it was given.
        file: String,
        /// Line, from 1.
        line: u32,
        /// Column in characters, from 1.
        column: u32,
        /// What is wrong, with the lines around it.
        message: String,
    },
    /// The text parses and gives nothing to run.
    #[error("{file}: found nothing to run: {reason}; {advice}")]
    NoFunction {
        /// File as it was given.
        file: String,
        /// What was found instead.
        reason: String,
        /// What to write.
        advice: String,
    },
    /// Two files publish one task.
    #[error(
        "two files have the task name {name:?}: {first} and {second}; give one of them another @task name"
    )]
    DuplicateName {
        /// The name.
        name: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Two modules of one task have the same path.
    #[error(
        "{file}: the module {path:?} was given twice; give each module of a task a path of its own"
    )]
    DuplicateModule {
        /// The task's file.
        file: String,
        /// The path.
        path: String,
    },
    /// More text than a task may have.
    #[error(
        "{file}: the task has {bytes} bytes of source with its modules, more than the limit of {limit}; split it into several tasks or raise Limits::source_bytes"
    )]
    TooLarge {
        /// File as it was given.
        file: String,
        /// What it has.
        bytes: usize,
        /// `Limits::source_bytes`.
        limit: usize,
    },
    /// Brackets or operators nest deeper than a parser can follow safely.
    #[error(
        "{file}:{line}:{column}: expressions or blocks nest too deeply here (the limit is {limit}); move inner parts into variables or functions of their own"
    )]
    TooDeep {
        /// File as it was given.
        file: String,
        /// Line, from 1.
        line: u32,
        /// Column in characters, from 1.
        column: u32,
        /// The limit that was passed.
        limit: u32,
    },
    /// A name that a task cannot have.
    #[error("{name:?} ({origin}) cannot be the name of a task: {reason}")]
    BadName {
        /// The name.
        name: String,
        /// Where it came from.
        origin: String,
        /// The rule it breaks.
        reason: String,
    },
    /// A relative import that leads to no module of the task.
    #[error(
        "{file}:{line}: cannot find {specifier:?}; looked for {tried} among the files of the task"
    )]
    ImportNotFound {
        /// The importing file.
        file: String,
        /// Line of the import, from 1.
        line: u32,
        /// As written.
        specifier: String,
        /// The paths that were looked for.
        tried: String,
    },
    /// An import that leads out of the task's folder.
    #[error(
        "{file}:{line}: {specifier:?} leads out of the folder that is published; move the file into it, or publish the folder above"
    )]
    ImportOutside {
        /// The importing file.
        file: String,
        /// Line of the import, from 1.
        line: u32,
        /// As written.
        specifier: String,
    },
    /// An import of a package or a built-in module: tasks have none.
    #[error(
        "{file}:{line}: cannot import {specifier:?}: a task has only its own files (specifiers that begin with ./ or ../); reach services through context.tools, other tasks through context.tools.tasks.execute"
    )]
    ImportUnknown {
        /// The importing file.
        file: String,
        /// Line of the import, from 1.
        line: u32,
        /// As written.
        specifier: String,
    },
    /// A TypeScript file in a build that cannot strip types.
    #[error(
        "{file}: this build runs JavaScript only; build tasker-core with the feature `typescript`, or compile the file to JavaScript first"
    )]
    TypeScriptOff {
        /// File as it was given.
        file: String,
    },
    /// Stored columns that no publish could have written.
    #[error(
        "task {name} version {version} cannot be read: {reason}; publish it again from its source"
    )]
    Corrupt {
        /// Name.
        name: String,
        /// Version.
        version: String,
        /// What is wrong.
        reason: String,
    },
    /// A file or folder could not be read.
    #[error("cannot read {path}: {source}; check that it exists and may be read")]
    Io {
        /// Which.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// No thread for the parser could be started.
    #[error(
        "cannot start a thread to parse {file}: {source}; try again when the system has memory"
    )]
    Thread {
        /// File as it was given.
        file: String,
        /// The cause.
        source: std::io::Error,
    },
}

impl TaskError {
    /// Whether the same call can succeed later without a change to the task.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::Interrupted,
            Self::Thread { .. } => true,
            _ => false,
        }
    }
}
