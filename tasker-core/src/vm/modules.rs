//! Which file of a program a module name means.

use crate::task::{Module, Program};

/// What may be left out at the end of a name.
const ENDINGS: [&str; 6] = ["", ".js", ".mjs", ".cjs", ".json", "/index.js"];

/// The program's file with this path.
pub(super) fn find<'p>(program: &'p Program, path: &str) -> Option<&'p Module> {
    if program.entry.path == path {
        return Some(&program.entry);
    }
    program.modules.iter().find(|module| module.path == path)
}

/// The path of the file that `name` means in the file `base`.
///
/// # Errors
/// A message for the author of the task.
pub(super) fn resolve(program: &Program, base: &str, name: &str) -> Result<String, String> {
    let missing = |why: &str| {
        let mut files: Vec<&str> = vec![&program.entry.path];
        files.extend(program.modules.iter().map(|module| module.path.as_str()));
        format!(
            "cannot find module '{name}' from {base}: {why}; the task has {}",
            files.join(", ")
        )
    };
    if !(name.starts_with("./") || name.starts_with("../") || name == "." || name == "..") {
        return Err(missing(
            "a task may load only its own files, by a path that begins with ./ or ../",
        ));
    }
    let mut parts: Vec<&str> = base.split('/').collect();
    parts.pop();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(missing("the path leaves the task's folder"));
                }
            }
            part => parts.push(part),
        }
    }
    let path = parts.join("/");
    ENDINGS
        .iter()
        .map(|ending| format!("{path}{ending}"))
        .find(|path| find(program, path).is_some())
        .ok_or_else(|| missing("it was not published with the task"))
}

/// Whether a path names a file of data.
pub(super) fn is_json(path: &str) -> bool {
    path.rsplit_once('.')
        .is_some_and(|(_, ending)| ending == "json")
}
