//! `service.toml`: how a service of the folder is started.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::CliError;
use crate::registry::PLACES;

/// Name of the file.
pub(crate) const MANIFEST: &str = "service.toml";

const FORM: &str = r#"it looks like: command = ["node", "index.mjs"]"#;

/// A service of the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Name of its folder, by which tasks call it.
    pub(crate) name: String,
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// What the file says.
    pub(crate) said: Said,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Said {
    /// Program and arguments, started in the service's folder.
    pub(crate) command: Vec<String>,
    /// For people.
    #[serde(default)]
    pub(crate) description: String,
    /// Answers 200 once the service is ready.
    #[serde(default = "health")]
    pub(crate) health: String,
    /// How long it may take until then, in seconds.
    #[serde(default = "start_timeout_secs")]
    pub(crate) start_timeout_secs: u64,
    /// Only tasks with a grant may call it.
    #[serde(default)]
    pub(crate) private: bool,
    /// Variables of its own.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// Variables of the server that it may see.
    #[serde(default)]
    pub(crate) pass_env: Vec<String>,
}

fn health() -> String {
    "/health".to_owned()
}

const fn start_timeout_secs() -> u64 {
    30
}

/// The services of a folder, by name. None when there is no such folder.
///
/// # Errors
/// A manifest that cannot be read, or a name that is none or taken.
pub(crate) fn read_all(dir: &Path) -> Result<Vec<Manifest>, CliError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(CliError::io(format!(
                "the folder of services {} could not be read",
                dir.display()
            ))(error));
        }
    };
    let mut manifests = Vec::new();
    for entry in entries.flatten() {
        let dir = entry.path();
        let path = dir.join(MANIFEST);
        if path.is_file() {
            manifests.push(read(&dir, &path)?);
        }
    }
    manifests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(manifests)
}

fn read(dir: &Path, path: &Path) -> Result<Manifest, CliError> {
    let wrong = |problem: String| CliError::Setting(format!("{}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(CliError::io(format!(
        "{} could not be read",
        path.display()
    )))?;
    let said: Said = toml::from_str(&text)
        .map_err(|error| wrong(format!("{}; {FORM}", error.to_string().trim_end())))?;
    if said.command.first().is_none_or(String::is_empty) {
        return Err(wrong(format!("command names no program; {FORM}")));
    }
    if !said.health.starts_with('/') {
        return Err(wrong(format!(
            "health is {:?}; it is a path, like /health",
            said.health
        )));
    }
    if !(1..=600).contains(&said.start_timeout_secs) {
        return Err(wrong(
            "start_timeout_secs is a number from 1 to 600".to_owned(),
        ));
    }
    let name = dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    check_name(&name).map_err(|problem| wrong(format!("the folder's name {problem}")))?;
    Ok(Manifest {
        name,
        dir: dir.to_owned(),
        said,
    })
}

/// Whether a service of the folder may be called this.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let fit = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 64
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !fit {
        return Err(format!(
            "{name:?} is no name of a service: small letters, digits and `-`, a letter first, at most 64"
        ));
    }
    if PLACES.contains(&name)
        || ["executor", "http", "tasks", "log", "sleep", "run"].contains(&name)
    {
        return Err(format!(
            "{name:?} is the name of something built in; choose another"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str, text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join(MANIFEST), text).unwrap();
        dir
    }

    #[test]
    fn a_manifest_is_read_with_its_defaults() {
        let dir = folder(
            "greeter",
            "command = ['python3', 'main.py']\n[env]\nA = 'b'\n",
        );
        std::fs::create_dir(dir.path().join("no-service")).unwrap();
        let all = read_all(dir.path()).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].name, "greeter");
        assert_eq!(
            (all[0].said.health.as_str(), all[0].said.start_timeout_secs),
            ("/health", 30)
        );
        assert_eq!(all[0].said.env["A"], "b");
        assert_eq!(read_all(Path::new("/nowhere/at/all")).unwrap(), []);
    }

    #[test]
    fn a_wrong_manifest_is_said_with_its_file() {
        for (name, text, word) in [
            ("a", "comand = ['x']", "comand"),
            ("a", "command = []", "program"),
            ("a", "command = ['x']\nhealth = 'health'", "path"),
            ("a", "command = ['x']\nstart_timeout_secs = 0", "600"),
            ("keystore", "command = ['x']", "built in"),
            ("A b", "command = ['x']", "small letters"),
        ] {
            let error = read_all(folder(name, text).path()).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(MANIFEST), "{error}");
        }
    }
}
