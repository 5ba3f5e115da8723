//! `tasker tasks`, `tasker schema`, `tasker types`: what is published.

use std::path::PathBuf;

use serde_json::json;
use tasker_core::task::type_declarations;
use tasker_core::{Json, Schema};

use super::Here;
use super::publish::short;
use crate::args::SchemaFormat;
use crate::error::CliError;
use crate::output::{Output, columns};
use crate::view::TaskView;

/// Lists the published tasks.
pub(super) async fn tasks(here: &Here) -> Result<(), CliError> {
    let engine = here.client().await?;
    let tasks: Vec<TaskView> = engine.tasks().await?.iter().map(TaskView::of).collect();
    if tasks.is_empty() {
        here.output
            .note("nothing is published; publish a folder with `tasker publish --all`");
    }
    here.output.answer(&tasks, || {
        let rows: Vec<[String; 3]> = tasks
            .iter()
            .map(|task| {
                let first = task.description.lines().next().unwrap_or_default();
                [
                    task.name.clone(),
                    short(&task.version).to_owned(),
                    first.to_owned(),
                ]
            })
            .collect();
        columns(&rows)
    })
}

/// Prints a task's schema. It is JSON with and without `--json`.
pub(super) async fn schema(here: &Here, name: &str, format: SchemaFormat) -> Result<(), CliError> {
    let engine = here.client().await?;
    let schema = Schema::from_json(&engine.task(name).await?.schema);
    Output::line(in_format(&schema, format).text())
}

/// A schema in one of its forms.
pub(crate) fn in_format(schema: &Schema, format: SchemaFormat) -> Json {
    match format {
        SchemaFormat::Json => schema.json(),
        SchemaFormat::Openapi => schema.openapi(),
        SchemaFormat::Openai => schema.openai(),
    }
}

/// Prints or writes type declarations.
pub(super) async fn types(here: &Here, out: Option<PathBuf>) -> Result<(), CliError> {
    let engine = here.client().await?;
    let schemas: Vec<Schema> = engine
        .tasks()
        .await?
        .iter()
        .map(|task| Schema::from_json(&task.schema))
        .collect();
    let text = type_declarations(&engine.services().list(), &schemas);
    match out {
        None => here
            .output
            .answer(&json!({ "declarations": text }), || text.clone()),
        Some(path) => {
            let shown = path.display().to_string();
            std::fs::write(&path, &text)
                .map_err(CliError::io(format!("{shown} could not be written")))?;
            here.output
                .answer(&json!({ "file": shown }), || format!("wrote {shown}"))
        }
    }
}
