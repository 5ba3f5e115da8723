//! `tasker init`: a folder to start from.

use std::path::Path;

use serde_json::json;

use super::Here;
use super::service::{place, write};
use crate::args::Template;
use crate::error::CliError;

const SETTINGS: &str = include_str!("../../templates/tasker.toml");
const EXAMPLE: &str = include_str!("../../templates/hello.js");

/// Makes the folder. What is there already is left as it is.
pub(super) fn perform(here: &Here, dir: &Path) -> Result<(), CliError> {
    let own = [
        (dir.join("tasker.toml"), SETTINGS),
        (dir.join("tasks").join("hello.js"), EXAMPLE),
    ];
    let services = dir.join("services");
    let service = place(&services, "hello-world", Template::HelloWorld);
    let (mut made, mut kept) = (Vec::new(), Vec::new());
    for (path, text) in own.into_iter().chain(service) {
        if path.exists() {
            kept.push(path.display().to_string());
            continue;
        }
        write(&path, text)?;
        made.push(path.display().to_string());
    }
    here.output.answer(&json!({ "made": made, "kept": kept }), || {
        let made = made.iter().map(|path| format!("made  {path}"));
        let kept = kept.iter().map(|path| format!("kept  {path}"));
        let next = "next: tasker publish --all && tasker run hello --input '{\"name\":\"Ada\"}' --poll";
        made.chain(kept).chain([next.to_owned()]).collect::<Vec<String>>().join("\n")
    })
}
