//! `tasker service`: services of one's own, in a folder.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::Here;
use crate::args::{ServiceFolder, Template};
use crate::error::CliError;
use crate::folder::{MANIFEST, check_name, read_all};
use crate::output::columns;

/// Files of a template, by name.
type Files = [(&'static str, &'static str); 2];

macro_rules! template {
    ($name:literal) => {
        [
            (
                MANIFEST,
                include_str!(concat!("../../templates/services/", $name, "/service.toml")),
            ),
            (
                "index.mjs",
                include_str!(concat!("../../templates/services/", $name, "/index.mjs")),
            ),
        ]
    };
}

const fn files(template: Template) -> Files {
    match template {
        Template::HelloWorld => template!("hello-world"),
        Template::EchoService => template!("echo-service"),
        Template::ApiGateway => template!("api-gateway"),
    }
}

/// Does it.
pub(super) fn perform(here: &Here, what: &ServiceFolder) -> Result<(), CliError> {
    let services = PathBuf::from(here.config.text("services"));
    match what {
        ServiceFolder::New { name, template } => {
            check_name(name).map_err(CliError::Usage)?;
            let dir = services.join(name);
            if dir.exists() {
                return Err(CliError::File {
                    path: dir,
                    problem: "is there already, and nothing is written over; choose another name"
                        .to_owned(),
                });
            }
            let mut made = Vec::new();
            for (path, text) in place(&services, name, *template) {
                write(&path, text)?;
                made.push(path.display().to_string());
            }
            here.output
                .answer(&json!({ "name": name, "made": made }), || {
                    let made = made.iter().map(|path| format!("made  {path}"));
                    let next = format!(
                        "next: tasker serve, then from a task: await context.tools[\"{name}\"]…"
                    );
                    made.chain([next]).collect::<Vec<String>>().join("\n")
                })
        }
        ServiceFolder::List => {
            let all = read_all(&services)?;
            if all.is_empty() {
                here.output.note(format_args!(
                    "{} holds no services; make one with: tasker service new NAME",
                    services.display()
                ));
            }
            let values: Vec<serde_json::Value> = all
                .iter()
                .map(|service| json!({ "name": service.name, "description": service.said.description, "command": service.said.command, "private": service.said.private }))
                .collect();
            here.output.answer(&values, || {
                let rows: Vec<[String; 3]> = all
                    .iter()
                    .map(|service| {
                        [
                            service.name.clone(),
                            service.said.command.join(" "),
                            service.said.description.clone(),
                        ]
                    })
                    .collect();
                columns(&rows)
            })
        }
    }
}

/// Where the files of a new service stand, and what they say.
pub(super) fn place(
    services: &Path,
    name: &str,
    template: Template,
) -> impl Iterator<Item = (PathBuf, &'static str)> {
    let dir = services.join(name);
    files(template)
        .into_iter()
        .map(move |(file, text)| (dir.join(file), text))
}

/// Writes a file, and makes its folder.
pub(super) fn write(path: &Path, text: &str) -> Result<(), CliError> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(CliError::io(format!(
            "{} could not be made",
            parent.display()
        )))?;
    }
    std::fs::write(path, text).map_err(CliError::io(format!(
        "{} could not be written",
        path.display()
    )))
}
