//! `tasker publish`: tasks of a folder become tasks of the database.

use serde::Serialize;
use tasker_core::adaptor::Published;
use tasker_core::task::{PreparedTask, TaskSource, prepare, read_dir};
use tasker_core::vm::check_program;
use tasker_core::{Engine, EngineError, TaskOptions};

use super::Here;
use crate::args::Publish;
use crate::error::CliError;
use crate::host::limits;
use crate::output::columns;

/// What became, or would become, of a task.
#[derive(Serialize)]
struct Line {
    name: String,
    file: String,
    version: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// A task that passed every check.
struct Checked {
    source: TaskSource,
    options: TaskOptions,
    prepared: PreparedTask,
}

impl Checked {
    fn is_named(&self, name: &str) -> bool {
        self.prepared.new_task.name.as_str() == name
    }
}

/// Publishes. Everything is checked first: when one task is wrong, none is published.
pub(super) async fn perform(here: &Here, args: &Publish) -> Result<(), CliError> {
    let tasks = check(here, args)?;
    let named = |name: &&str| !tasks.iter().any(|task| task.is_named(name));
    for name in here.config.granted_tasks().filter(named) {
        here.output.note(format_args!(
            "warning: tasker.toml grants something to the task {name:?}, which is not in this folder"
        ));
    }
    if tasks.is_empty() && args.specific.is_empty() {
        here.output.note(format_args!(
            "{} holds no tasks; a task is a file like hello.js of `tasker init`",
            here.config.tasks_dir().display()
        ));
    }
    let tasks = choose(tasks, &args.specific)?;
    let engine = here.client().await?;
    let mut lines = Vec::new();
    for task in tasks {
        lines.push(if args.list || args.dry_run {
            look(&engine, task).await?
        } else {
            store(&engine, task).await?
        });
    }
    engine.shutdown().await?;
    for line in &lines {
        for warning in &line.warnings {
            here.output
                .note(format_args!("warning: {}: {warning}", line.name));
        }
    }
    here.output.answer(&lines, || {
        let rows: Vec<[String; 4]> = lines
            .iter()
            .map(|line| {
                [
                    line.name.clone(),
                    line.state.to_owned(),
                    short(&line.version).to_owned(),
                    line.file.clone(),
                ]
            })
            .collect();
        columns(&rows)
    })
}

/// Publishes what changed in the folder: the tasks that became another version, each with its state.
pub(crate) async fn publish_changes(
    here: &Here,
    engine: &Engine,
) -> Result<Vec<(String, &'static str)>, CliError> {
    let all = Publish {
        all: true,
        ..Publish::default()
    };
    let mut changed = Vec::new();
    for task in check(here, &all)? {
        let line = store(engine, task).await?;
        if line.state != UNCHANGED {
            changed.push((line.name, line.state));
        }
    }
    Ok(changed)
}

const UNCHANGED: &str = "unchanged";

/// The beginning of a version.
pub(super) fn short(version: &str) -> &str {
    version.get(..12).unwrap_or(version)
}

fn check(here: &Here, args: &Publish) -> Result<Vec<Checked>, CliError> {
    let dir = here.config.tasks_dir();
    if !dir.is_dir() {
        return Err(CliError::File {
            path: dir,
            problem: "there is no such folder of tasks; make one with `tasker init`, or name one with --dir".to_owned(),
        });
    }
    let limits = limits();
    let mut tasks = Vec::new();
    for source in read_dir(std::slice::from_ref(&dir), &limits)? {
        let first = prepare(source.clone(), &TaskOptions::default(), &limits)?;
        let name = first.new_task.name.as_str();
        let granted = here.config.grants(name).iter().chain(&args.grant);
        let options = granted_options(name, granted)?;
        let prepared = if options == TaskOptions::default() {
            first
        } else {
            prepare(source.clone(), &options, &limits)?
        };
        tasks.push(Checked {
            source,
            options,
            prepared,
        });
    }
    for task in &tasks {
        check_program(&task.prepared.program, &limits).map_err(|failure| {
            EngineError::DoesNotCompile {
                name: task.prepared.new_task.name.to_string(),
                failure,
            }
        })?;
    }
    Ok(tasks)
}

/// What a task is granted: `keystore` is the whole service, `gapi.gmail.users.messages.list` or `gapi.drive.*` some of its methods.
fn granted_options<'g>(
    task: &str,
    granted: impl Iterator<Item = &'g String>,
) -> Result<TaskOptions, CliError> {
    let mut options = TaskOptions::default();
    for text in granted {
        let (service, method) = match text.split_once('.') {
            None => (text.as_str(), None),
            Some((service, method)) => (service, Some(method)),
        };
        let star_inside = method.is_some_and(|method| {
            let before = method.strip_suffix('*').unwrap_or(method);
            before.contains('*')
                || (before != method && !before.is_empty() && !before.ends_with('.'))
        });
        if service.is_empty() || method == Some("") || star_inside {
            return Err(CliError::Setting(format!(
                "the grant {text:?} of task {task:?} cannot be read; it is a service (keystore), a method of one (gapi.gmail.users.messages.list), \
                 or all below a name (gapi.drive.*)"
            )));
        }
        match method {
            None if !options.grants.iter().any(|known| known == service) => {
                options = options.grant(service);
            }
            None => {}
            Some(method) => options = options.grant_methods(service, [method]),
        }
    }
    if let Some(both) = options
        .grants
        .iter()
        .find(|service| options.methods.contains_key(*service))
    {
        return Err(CliError::Setting(format!(
            "task {task:?} is granted {both:?} and methods of it; name either the service or the methods"
        )));
    }
    Ok(options)
}

/// Only those that were named; all of them when none was.
fn choose(tasks: Vec<Checked>, names: &[String]) -> Result<Vec<Checked>, CliError> {
    if names.is_empty() {
        return Ok(tasks);
    }
    let known: Vec<String> = tasks
        .iter()
        .map(|task| task.prepared.new_task.name.to_string())
        .collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        return Err(CliError::Usage(format!(
            "no file holds a task {unknown:?}; the folder holds {}",
            known.join(", ")
        )));
    }
    Ok(tasks
        .into_iter()
        .filter(|task| {
            names
                .iter()
                .any(|name| name == task.prepared.new_task.name.as_str())
        })
        .collect())
}

async fn look(engine: &Engine, task: Checked) -> Result<Line, CliError> {
    let new = &task.prepared.new_task;
    let state = match engine.task(new.name.as_str()).await {
        Ok(stored) if stored.version == new.version => UNCHANGED,
        Ok(_) => "changed",
        Err(EngineError::UnknownTask { .. }) => "new",
        Err(error) => return Err(error.into()),
    };
    Ok(Line {
        name: new.name.to_string(),
        file: task.source.path,
        version: new.version.to_string(),
        state,
        warnings: task.prepared.warnings,
    })
}

async fn store(engine: &Engine, task: Checked) -> Result<Line, CliError> {
    let file = task.source.path.clone();
    let published = engine
        .publish_source(task.source)
        .options(task.options)
        .await?;
    Ok(Line {
        name: published.name.to_string(),
        file,
        version: published.version.to_string(),
        state: match published.published {
            Published::Unchanged => UNCHANGED,
            Published::Restored => "restored",
            Published::Created => "published",
        },
        warnings: published.warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_name_services_or_methods() {
        let granted = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            granted_options("t", texts.iter()).map_err(|error| error.to_string())
        };
        assert_eq!(granted(&[]), Ok(TaskOptions::default()));
        let options = TaskOptions::default()
            .grant("keystore")
            .grant_methods("gapi", ["gmail.users.messages.list", "drive.*"])
            .grant_methods("all", ["*"]);
        assert_eq!(
            granted(&[
                "keystore",
                "gapi.gmail.users.messages.list",
                "keystore",
                "gapi.drive.*",
                "all.*"
            ]),
            Ok(options)
        );
        for wrong in ["", ".x", "gapi.", "gapi.drive*", "gapi.*.list", "gapi.a*.b"] {
            let error = granted(&[wrong]).unwrap_err();
            assert!(
                error.contains("gapi.drive.*") && error.contains(wrong),
                "{error}"
            );
        }
        let both = granted(&["gapi", "gapi.drive.*"]).unwrap_err();
        assert!(both.contains("either"), "{both}");
    }
}
