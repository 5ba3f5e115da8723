//! The command line as types. What a command does is in the module `command`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use serde_json::json;
use tasker_core::{RunStatus, TaskRunId};

const EXIT_CODES: &str = "\
Exit codes:
  0    done; for run --poll and status --poll: the run completed
  1    it did not work: the message says what stood in the way
  2    the command line or a setting is wrong
  3    the run failed
  4    the run is blocked and needs a person
  5    the run was cancelled
  6    no such task, run or key
  130  detached by Ctrl-C or SIGTERM; the run is kept

Settings come from flags, then the environment, then .env, then tasker.toml: see `tasker config`.";

/// Durable, sandboxed JavaScript tasks.
#[derive(Debug, Parser)]
#[command(name = "tasker", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Reads a command line. What clap says of a wrong one, or of `--help`, is printed here: as JSON where `--json` stands in it.
///
/// # Errors
/// The exit code to end with.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, u8> {
    let words: Vec<OsString> = words.into_iter().collect();
    Cli::try_parse_from(&words).map_err(|mut error| {
        advise(&mut error, &words);
        let code = u8::try_from(error.exit_code()).unwrap_or(2);
        let in_json = words.iter().any(|word| word == "--json");
        if error.use_stderr() && in_json {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            eprintln!("{}", json!({ "error": text.trim_end(), "exitCode": code }));
        } else {
            // A reader that has gone away is no error.
            let _ = error.print();
        }
        code
    })
}

/// Says where a word belongs that a command does not take where it stands.
fn advise(error: &mut clap::Error, words: &[OsString]) {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else {
        return;
    };
    if error.kind() != ErrorKind::UnknownArgument || word.starts_with('-') {
        return;
    }
    let cli = Cli::command();
    let command = words
        .iter()
        .skip(1)
        .find_map(|word| cli.find_subcommand(word));
    let tip = match command.map(clap::Command::get_name) {
        Some("run") => format!("the input goes behind --input: --input '{word}'"),
        Some("task") => "the name goes behind --task, the input behind --input".to_owned(),
        Some("publish") => format!(
            "a folder goes behind --dir, with --all: --dir {word} --all; names of tasks go behind --specific: --specific {word}"
        ),
        _ => return,
    };
    error.insert(
        ContextKind::Suggested,
        ContextValue::StyledStrs(vec![tip.into()]),
    );
}

/// What every command takes.
#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// The database: sqlite:FILE or postgres://… [default: sqlite:tasker.db]
    #[arg(long, global = true, value_name = "URL")]
    pub database: Option<String>,
    /// What stands between tasks and this process: confined child processes, or nothing but the limits of a frame, for code that
    /// you would review [default on Linux: process]
    #[arg(long, global = true, value_enum)]
    pub wall: Option<WallKind>,
    /// Answers in JSON on standard output, one value, or one a line for lists that go on.
    #[arg(long, global = true)]
    pub json: bool,
    /// Logs in detail on standard error.
    #[arg(long, global = true)]
    pub debug: bool,
}

/// What stands between tasks and this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WallKind {
    /// VMs in confined child processes: for code by strangers.
    Process,
    /// VMs on threads of this process.
    InProcess,
}

impl std::fmt::Display for WallKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Process => "process",
            Self::InProcess => "in-process",
        })
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes a folder to start from: tasker.toml, tasks/ and services/, each with an example.
    Init {
        /// The folder.
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// Publishes tasks from a folder. Runs that are under way keep their version.
    Publish(Publish),
    /// Lists the published tasks.
    Tasks,
    /// Prints the schema of a published task, as read from its JSDoc.
    Schema {
        /// The task.
        name: String,
        /// In which form.
        #[arg(long, value_enum, default_value_t = SchemaFormat::Json)]
        format: SchemaFormat,
    },
    /// Prints type declarations for editors: context, services, published tasks.
    Types {
        /// Writes them to this file.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Runs a task.
    Run(Run),
    /// Runs a task, spelled as the earlier task executor was.
    Task(TaskAlias),
    /// Lists runs, newest first.
    Runs(Runs),
    /// Shows a run.
    Status {
        /// The run.
        #[arg(value_name = "ID", value_parser = run_id)]
        id: TaskRunId,
        /// Waits for its end; runs it in this process unless `tasker serve` works here.
        #[arg(long, short)]
        poll: bool,
    },
    /// Prints the log lines of a run.
    Logs {
        /// The run.
        #[arg(value_name = "ID", value_parser = run_id)]
        id: TaskRunId,
        /// Goes on until the run has ended.
        #[arg(long, short)]
        follow: bool,
    },
    /// Shows the call tree of a run with its times.
    Trace {
        /// The run.
        #[arg(value_name = "ID", value_parser = run_id)]
        id: TaskRunId,
    },
    /// Cancels a run: the task may clean up, then it is ended.
    Cancel {
        /// The run.
        #[arg(value_name = "ID", value_parser = run_id)]
        id: TaskRunId,
    },
    /// Sends a signal to a run: what its task waits for with `await context.signal(NAME)`. Sent before that, it is kept.
    Signal {
        /// The run.
        #[arg(value_name = "ID", value_parser = run_id)]
        id: TaskRunId,
        /// The name of the signal.
        #[arg(value_name = "NAME")]
        name: String,
        /// What the task gets: JSON text, @FILE, or - for standard input.
        #[arg(value_name = "JSON", default_value = "null")]
        payload: String,
    },
    /// Decides about a blocked run.
    Unblock(Unblock),
    /// Looks after the database.
    Db {
        /// What to do.
        #[command(subcommand)]
        what: Db,
    },
    /// Looks after secrets. Values come from standard input or a prompt, never from arguments.
    Keystore {
        /// What to do.
        #[command(subcommand)]
        what: Keystore,
    },
    /// Looks after services of your own, in services/.
    Service {
        /// What to do.
        #[command(subcommand)]
        what: ServiceFolder,
    },
    /// Shows every setting with its value and where that comes from.
    Config,
    /// Runs tasks and serves HTTP until it is told to stop.
    Serve(Serve),
    /// Prints completions for a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Does one step of the executor, confined. `tasker serve` starts it.
    #[command(name = "execute-once", hide = true)]
    ExecuteOnce {
        /// The process that started this one.
        #[arg(long)]
        parent: u32,
    },
    /// Becomes the program of a service, which ends when its server does. `tasker serve` starts services so.
    #[command(name = "become-service", hide = true)]
    BecomeService {
        /// The process that started this one.
        #[arg(long)]
        parent: u32,
        /// The program and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<String>,
    },
}

/// `tasker publish`.
#[derive(Debug, Default, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["all", "specific", "list"])))]
pub struct Publish {
    /// Every task of the folder.
    #[arg(long)]
    pub all: bool,
    /// Only these.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub specific: Vec<String>,
    /// Publishes nothing: lists the tasks of the folder and whether they are published.
    #[arg(long)]
    pub list: bool,
    /// The folder [default: tasks]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Checks everything and says what would change; publishes nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Lets the tasks call this private service, or of a service these methods only: gapi.drive.* (as the table `grants` in
    /// tasker.toml does for one task).
    #[arg(long, value_name = "SERVICE[.METHOD]")]
    pub grant: Vec<String>,
}

/// `tasker run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The task.
    pub name: String,
    /// What is common to both spellings.
    #[command(flatten)]
    pub how: RunHow,
}

/// `tasker task`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["task", "list"])))]
pub struct TaskAlias {
    /// The task.
    #[arg(long, short, value_name = "NAME")]
    pub task: Option<String>,
    /// Lists the published tasks instead.
    #[arg(long, short)]
    pub list: bool,
    /// What is common to both spellings.
    #[command(flatten)]
    pub how: RunHow,
}

/// How to run a task.
#[derive(Debug, Args)]
pub struct RunHow {
    /// The input: JSON text, @FILE, or - for standard input.
    #[arg(long, short, value_name = "JSON", default_value = "{}")]
    pub input: String,
    /// Waits for the end; runs it in this process unless `tasker serve` works here.
    #[arg(long, short)]
    pub poll: bool,
    /// A key of yours: the same key and request find the same run.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Checks the input against the schema of the task first.
    #[arg(long)]
    pub validate: bool,
}

/// `tasker runs`.
#[derive(Debug, Args)]
pub struct Runs {
    /// Only runs of this task.
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// Only runs of this status; may be given several times.
    #[arg(long, value_name = "STATUS", value_parser = run_status)]
    pub status: Vec<RunStatus>,
    /// At most this many.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// Only runs before (older than) this one.
    #[arg(long, value_name = "ID", value_parser = run_id)]
    pub before: Option<TaskRunId>,
}

fn run_id(word: &str) -> Result<TaskRunId, String> {
    word.parse().map_err(|_| {
        "no run has such an id; they look like 018f2c5e-7a1b-7c3d-9e4f-0123456789ab, see: tasker runs"
            .to_owned()
    })
}

fn run_status(word: &str) -> Result<RunStatus, String> {
    word.parse().map_err(|_| {
        let words: Vec<&str> = RunStatus::ALL.iter().map(|s| s.as_str()).collect();
        format!("a run is {}", words.join(", "))
    })
}

/// `tasker unblock`.
#[derive(Debug, Args)]
pub struct Unblock {
    /// The run.
    #[arg(value_name = "ID", value_parser = run_id)]
    pub id: TaskRunId,
    /// What to do with what is blocked.
    #[command(subcommand)]
    pub decision: Decision,
}

/// What to do with what is blocked.
#[derive(Debug, Subcommand)]
pub enum Decision {
    /// Tries again.
    Retry,
    /// Lets the task see a failure.
    Fail {
        /// What the failure says.
        #[arg(default_value = "failed by hand")]
        message: String,
    },
    /// Gives the task this result.
    Supply {
        /// The result: JSON text, @FILE, or - for standard input.
        #[arg(value_name = "JSON")]
        result: String,
    },
    /// Ends the run.
    Cancel,
}

/// `tasker db`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Db {
    /// Makes the tables, or brings them up to this version.
    Migrate,
    /// Checks every row against the rules of the engine.
    Check,
    /// Removes what ended runs left behind and gives free space back.
    Vacuum,
}

/// `tasker keystore`.
#[derive(Debug, Subcommand)]
pub enum Keystore {
    /// Sets a value, read from standard input or a prompt.
    Set {
        /// The key.
        key: String,
        /// The namespace.
        #[arg(long, default_value = "global")]
        namespace: String,
    },
    /// Prints a value.
    Get {
        /// The key.
        key: String,
        /// The namespace.
        #[arg(long, default_value = "global")]
        namespace: String,
    },
    /// Deletes a value.
    Delete {
        /// The key.
        key: String,
        /// The namespace.
        #[arg(long, default_value = "global")]
        namespace: String,
    },
    /// Lists keys.
    List {
        /// Only this namespace.
        #[arg(long)]
        namespace: Option<String>,
    },
    /// Seals every value again under the current master key.
    Rotate,
}

/// `tasker service`.
#[derive(Debug, Subcommand)]
pub enum ServiceFolder {
    /// Makes services/NAME from a template; `tasker serve` starts it from then on.
    New {
        /// Its name, as tasks call it: letters, digits, `-`; begins with a letter.
        name: String,
        /// From which template.
        #[arg(long, value_enum, default_value_t = Template::HelloWorld)]
        template: Template,
    },
    /// Lists the services of the folder.
    List,
}

/// Templates of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// Greets.
    HelloWorld,
    /// Answers with what it was asked.
    EchoService,
    /// Passes requests on to hosts on a list.
    ApiGateway,
}

/// `tasker serve`.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line, independent of the others"
)]
pub struct Serve {
    /// Only these services, by name, with commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub services: Vec<String>,
    /// The first port; each service has its fixed place after it. 0: any free ports [default: 3100]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// The address to listen on. Others than loopback need a token [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub bind: Option<String>,
    /// Listens on other addresses than loopback without a token.
    #[arg(long)]
    pub allow_unauthenticated: bool,
    /// Publishes tasks of the folder again as their files change.
    #[arg(long)]
    pub watch: bool,
    /// Web pages of these origins are answered, each as scheme://host:port, with commas [default: none]
    #[arg(long, value_name = "ORIGINS", value_delimiter = ',')]
    pub cors_origins: Vec<String>,
    /// Accepted for the sake of older scripts: there is no runtime to choose.
    #[arg(long, hide = true, conflicts_with_all = ["node", "bun"])]
    pub deno: bool,
    /// As `--deno`.
    #[arg(long, hide = true, conflicts_with = "bun")]
    pub node: bool,
    /// As `--deno`.
    #[arg(long, hide = true)]
    pub bun: bool,
    /// Who drives runs: this process by itself, or POSTs to simple-stack-processor alone.
    #[arg(long, value_enum, default_value_t = DriveBy::Engine)]
    pub drive: DriveBy,
}

/// Who drives runs under `tasker serve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DriveBy {
    /// This process, by itself.
    Engine,
    /// POSTs to simple-stack-processor, alone.
    Post,
}

/// Forms of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaFormat {
    /// JSON Schema of parameters and result.
    Json,
    /// An OpenAPI document with one path.
    Openapi,
    /// A function for OpenAI's tool calls.
    Openai,
}
