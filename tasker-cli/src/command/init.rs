//! `tasker init`: a folder to start from.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::Here;
use crate::error::CliError;

const SETTINGS: &str = include_str!("../../templates/tasker.toml");
const EXAMPLE: &str = include_str!("../../templates/hello.js");

/// Makes the folder. What is there already is left as it is.
pub(super) fn perform(here: &Here, dir: &Path) -> Result<(), CliError> {
    let files: [(PathBuf, &str); 2] = [
        (dir.join("tasker.toml"), SETTINGS),
        (dir.join("tasks").join("hello.js"), EXAMPLE),
    ];
    let (mut made, mut kept) = (Vec::new(), Vec::new());
    for (path, text) in files {
        if path.exists() {
            kept.push(path.display().to_string());
            continue;
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(CliError::io(format!(
                "{} could not be made",
                parent.display()
            )))?;
        }
        std::fs::write(&path, text).map_err(CliError::io(format!(
            "{} could not be written",
            path.display()
        )))?;
        made.push(path.display().to_string());
    }
    here.output.answer(&json!({ "made": made, "kept": kept }), || {
        let made = made.iter().map(|path| format!("made  {path}"));
        let kept = kept.iter().map(|path| format!("kept  {path}"));
        let next = "next: tasker publish --all && tasker run hello --input '{\"name\":\"Ada\"}' --poll";
        made.chain(kept).chain([next.to_owned()]).collect::<Vec<String>>().join("\n")
    })
}
