//! Settings, each with the place it came from: flags, then the environment, then `.env`, then `tasker.toml`, then the default.
//!
//! The files are read from the working directory. `.env` is read, never put into the environment of this process.
//! An empty value is no value. What is secret is never shown.

mod known;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

use crate::error::CliError;
use known::{KNOWN, Known, Secrecy};

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag.
    Flag(&'static str),
    /// An environment variable.
    Environment(&'static str),
    /// A variable in `.env`.
    DotEnv(&'static str),
    /// `tasker.toml`.
    Toml,
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::DotEnv(name) => write!(f, ".env {name}"),
            Self::Toml => f.write_str("tasker.toml"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone)]
struct Value {
    text: String,
    source: Source,
}

/// All settings.
#[derive(Clone)]
pub struct Config {
    values: BTreeMap<&'static str, Value>,
    grants: BTreeMap<String, Vec<String>>,
    remotes: BTreeMap<String, String>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Config(values may be secret)")
    }
}

/// What the layers say, strongest first.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// Flag, setting, value.
    pub flags: Vec<(&'static str, &'static str, String)>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// `.env`.
    pub dot_env: BTreeMap<String, String>,
    /// The text of `tasker.toml`.
    pub toml: Option<String>,
}

impl Layers {
    /// What the process and the files of a folder say.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn read(dir: &Path) -> Result<Self, CliError> {
        let path = dir.join(".env");
        let mut dot_env = BTreeMap::new();
        if path.exists() {
            let wrong = |error: dotenvy::Error| {
                CliError::Setting(format!("{}: {error}; a line is NAME=value", path.display()))
            };
            for line in dotenvy::from_path_iter(&path).map_err(wrong)? {
                let (name, value) = line.map_err(wrong)?;
                dot_env.insert(name, value);
            }
        }
        let path = dir.join("tasker.toml");
        let toml = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(CliError::io(format!(
                    "{} could not be read",
                    path.display()
                ))(error));
            }
        };
        Ok(Self {
            flags: Vec::new(),
            environment: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            dot_env,
            toml,
        })
    }

    /// A flag that was given.
    pub fn flag(
        &mut self,
        flag: &'static str,
        setting: &'static str,
        value: Option<impl fmt::Display>,
    ) {
        if let Some(value) = value {
            self.flags.push((flag, setting, value.to_string()));
        }
    }
}

impl Config {
    /// The settings that the layers make.
    ///
    /// # Errors
    /// `tasker.toml` that cannot be parsed or names something unknown.
    pub fn new(layers: &Layers) -> Result<Self, CliError> {
        let file = Toml::parse(layers.toml.as_deref().unwrap_or_default())?;
        let mut values = BTreeMap::new();
        for known in KNOWN {
            let flag = layers
                .flags
                .iter()
                .rfind(|(_, setting, _)| *setting == known.name);
            let value = flag
                .map(|(flag, _, value)| (value.clone(), Source::Flag(flag)))
                .or_else(|| {
                    variable(known, &layers.environment)
                        .map(|(name, value)| (value, Source::Environment(name)))
                })
                .or_else(|| {
                    variable(known, &layers.dot_env)
                        .map(|(name, value)| (value, Source::DotEnv(name)))
                })
                .or_else(|| {
                    file.values
                        .get(known.name)
                        .map(|value| (value.clone(), Source::Toml))
                })
                .or_else(|| {
                    known
                        .default
                        .map(|value| (value.to_owned(), Source::Default))
                });
            if let Some((text, source)) = value {
                values.insert(known.name, Value { text, source });
            }
        }
        let mut remotes = BTreeMap::new();
        for variables in [&layers.dot_env, &layers.environment] {
            for (name, url) in variables.iter().filter(|(_, url)| !url.is_empty()) {
                let service = name
                    .strip_prefix("TASKER_SERVICE_")
                    .and_then(|name| name.strip_suffix("_URL"));
                if let Some(service) = service.filter(|service| !service.is_empty()) {
                    remotes.insert(service.to_ascii_lowercase().replace('_', "-"), url.clone());
                }
            }
        }
        Ok(Self {
            values,
            grants: file.grants,
            remotes,
        })
    }

    /// The value of a setting, as text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.text.as_str())
    }

    /// The value of a setting that has a default.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// A list: separated by commas.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        let text = self.get(name).unwrap_or_default();
        text.split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .collect()
    }

    /// A whole number within bounds.
    pub(crate) fn number(&self, name: &str, bounds: RangeInclusive<u64>) -> Result<u64, CliError> {
        let number = self.text(name).trim().parse::<u64>().ok();
        number
            .filter(|number| bounds.contains(number))
            .ok_or_else(|| {
                let problem = format!("is no number from {} to {}", bounds.start(), bounds.end());
                self.wrong(name, &problem)
            })
    }

    /// `text` or `json`: what was said, else JSON in production, where programs read logs.
    pub(crate) fn log_format(&self) -> &str {
        self.get("log.format")
            .unwrap_or(match self.text("environment") {
                "production" => "json",
                _ => "text",
            })
    }

    /// The values that nobody may see in a log.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let mut secrets = Vec::new();
        for known in KNOWN {
            let Some(value) = self.values.get(known.name) else {
                continue;
            };
            match known.secret {
                Secrecy::Open => {}
                Secrecy::Secret => {
                    secrets.extend(value.text.split(',').map(str::trim).map(str::to_owned));
                    secrets.push(value.text.clone());
                }
                Secrecy::Url => {
                    let url = url::Url::parse(&value.text).ok();
                    secrets.extend(url.and_then(|url| url.password().map(str::to_owned)));
                }
            }
        }
        secrets
    }

    /// A number.
    pub(crate) fn port(&self) -> Result<u16, CliError> {
        let text = self.text("serve.port");
        text.parse().map_err(|_| {
            self.wrong(
                "serve.port",
                "is no port; a port is a number from 0 to 65535",
            )
        })
    }

    /// An error about a setting, with its source.
    pub(crate) fn wrong(&self, name: &str, problem: &str) -> CliError {
        let known = KNOWN.iter().find(|known| known.name == name);
        match (self.values.get(name), known) {
            (Some(value), Some(known)) => CliError::Setting(format!(
                "{name} ({}) {} {problem}",
                value.source,
                shown(known, &value.text)
            )),
            _ => CliError::Setting(format!("{name} {problem}")),
        }
    }

    /// The folder of tasks.
    pub(crate) fn tasks_dir(&self) -> PathBuf {
        let dir = PathBuf::from(self.text("tasks"));
        // The earlier publisher kept tasks in `endpoints` below TASKS_DIRECTORY.
        let endpoints = dir.join("endpoints");
        let earlier = self.values.get("tasks").is_some_and(|value| {
            matches!(value.source, Source::Environment(_) | Source::DotEnv(_))
        });
        if earlier && endpoints.is_dir() {
            endpoints
        } else {
            dir
        }
    }

    /// What a task is granted: services, and methods of services.
    pub(crate) fn grants(&self, task: &str) -> &[String] {
        self.grants.get(task).map_or(&[], Vec::as_slice)
    }

    /// The tasks that were granted something.
    pub(crate) fn granted_tasks(&self) -> impl Iterator<Item = &str> {
        self.grants.keys().map(String::as_str)
    }

    /// Services elsewhere: name and URL, from `TASKER_SERVICE_<NAME>_URL`.
    pub(crate) fn remotes(&self) -> &BTreeMap<String, String> {
        &self.remotes
    }

    /// Every setting as a line for people.
    pub(crate) fn lines(&self) -> Vec<[String; 3]> {
        KNOWN
            .iter()
            .map(|known| match self.values.get(known.name) {
                Some(value) => [
                    known.name.to_owned(),
                    shown(known, &value.text),
                    value.source.to_string(),
                ],
                None => [
                    known.name.to_owned(),
                    "-".to_owned(),
                    format!("not set ({})", known.env.join(" or ")),
                ],
            })
            .collect()
    }

    /// Every setting as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        let settings = KNOWN.iter().map(|known| {
            let value = self.values.get(known.name);
            let entry = json!({
                "value": value.map(|value| shown(known, &value.text)),
                "source": value.map(|value| value.source.to_string()),
                "variables": known.env,
            });
            (known.name.to_owned(), entry)
        });
        serde_json::Value::Object(settings.collect())
    }
}

fn variable<'a>(known: &Known, variables: &BTreeMap<String, String>) -> Option<(&'a str, String)>
where
    'static: 'a,
{
    known.env.iter().find_map(|name| {
        let value = variables.get(*name).filter(|value| !value.is_empty())?;
        let value = if *name == "SQLITE_DB_PATH" {
            format!("sqlite:{value}")
        } else {
            value.clone()
        };
        Some((*name, value))
    })
}

/// A value as people may see it.
fn shown(known: &Known, text: &str) -> String {
    match known.secret {
        _ if text.is_empty() => "(empty)".to_owned(),
        Secrecy::Open => text.to_owned(),
        Secrecy::Secret => "[hidden]".to_owned(),
        Secrecy::Url => hide_password(text),
    }
}

/// A database URL without its password and without its query.
pub(crate) fn hide_password(text: &str) -> String {
    let Ok(mut url) = url::Url::parse(text) else {
        return if text.contains('@') {
            "[hidden]".to_owned()
        } else {
            text.to_owned()
        };
    };
    if url.cannot_be_a_base() {
        return text.to_owned();
    }
    if url.password().is_some() {
        let _ = url.set_password(Some("[hidden]"));
    }
    if url.query().is_some() {
        url.set_query(None);
    }
    url.to_string().replace("%5Bhidden%5D", "[hidden]")
}

/// What `tasker.toml` says.
struct Toml {
    values: BTreeMap<&'static str, String>,
    grants: BTreeMap<String, Vec<String>>,
}

impl Toml {
    fn parse(text: &str) -> Result<Self, CliError> {
        let wrong = |problem: String| CliError::Setting(format!("tasker.toml: {problem}"));
        let mut table: toml::Table =
            toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let grants = match table.remove("grants") {
            None => BTreeMap::new(),
            Some(value) => BTreeMap::deserialize(value).map_err(|error| {
                wrong(format!(
                    "[grants] cannot be read: {error}; it looks like: my-task = [\"keystore\", \"gapi.drive.*\"]"
                ))
            })?,
        };
        let mut values = BTreeMap::new();
        let mut flat = Vec::new();
        for (name, value) in table {
            match value {
                toml::Value::Table(inner) => flat.extend(
                    inner
                        .into_iter()
                        .map(|(key, value)| (format!("{name}.{key}"), value)),
                ),
                value => flat.push((name, value)),
            }
        }
        for (name, value) in flat {
            let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
                let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
                return Err(wrong(format!(
                    "there is no setting {name:?}; there are {} and the table grants",
                    names.join(", ")
                )));
            };
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(flag) => flag.to_string(),
                toml::Value::Array(items) => items
                    .iter()
                    .map(|item| item.as_str().map(str::to_owned))
                    .collect::<Option<Vec<String>>>()
                    .ok_or_else(|| wrong(format!("{name} holds something that is no text")))?
                    .join(","),
                _ => return Err(wrong(format!("{name} is neither text nor number nor list"))),
            };
            if !text.is_empty() {
                values.insert(known.name, text);
            }
        }
        Ok(Self { values, grants })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> Layers {
        Layers {
            toml: Some("database = \"sqlite:toml.db\"\n[serve]\nport = 4000\n[grants]\nsecretive = [\"keystore\"]\n".to_owned()),
            ..Layers::default()
        }
    }

    fn source(config: &Config, name: &str) -> (String, Source) {
        let value = config.values.get(name).unwrap();
        (value.text.clone(), value.source)
    }

    #[test]
    fn flags_beat_environment_beats_dot_env_beats_toml_beats_default() {
        let mut layers = layers();
        let find = |layers: &Layers| source(&Config::new(layers).unwrap(), "database");
        assert_eq!(
            find(&Layers::default()),
            ("sqlite:tasker.db".into(), Source::Default)
        );
        assert_eq!(find(&layers), ("sqlite:toml.db".into(), Source::Toml));
        layers
            .dot_env
            .insert("DATABASE_URL".into(), "sqlite:dot.db".into());
        assert_eq!(
            find(&layers),
            ("sqlite:dot.db".into(), Source::DotEnv("DATABASE_URL"))
        );
        layers
            .environment
            .insert("SQLITE_DB_PATH".into(), "env.db".into());
        assert_eq!(
            find(&layers),
            (
                "sqlite:env.db".into(),
                Source::Environment("SQLITE_DB_PATH")
            )
        );
        layers
            .environment
            .insert("DATABASE_URL".into(), String::new());
        assert_eq!(
            find(&layers).0,
            "sqlite:env.db",
            "an empty value is no value"
        );
        layers.flag("--database", "database", Some("sqlite:flag.db"));
        assert_eq!(
            find(&layers),
            ("sqlite:flag.db".into(), Source::Flag("--database"))
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut layers = layers();
        layers
            .environment
            .insert("OPENAI_API_KEY".into(), "sk-planted".into());
        layers.environment.insert(
            "DATABASE_URL".into(),
            "postgres://me:planted@db/app?password=planted".into(),
        );
        let config = Config::new(&layers).unwrap();
        let shown = format!("{:?} {:?} {}", config, config.lines(), config.json());
        assert!(!shown.contains("planted"), "{shown}");
        assert!(shown.contains("postgres://me:[hidden]@db/app"), "{shown}");
    }

    #[test]
    fn an_unknown_setting_is_an_error_that_names_the_known_ones() {
        let layers = Layers {
            toml: Some("databse = \"x\"".into()),
            ..Layers::default()
        };
        let error = Config::new(&layers).unwrap_err().to_string();
        assert!(
            error.contains("\"databse\"") && error.contains("database"),
            "{error}"
        );
    }

    #[test]
    fn grants_and_remotes_are_read() {
        let mut layers = layers();
        layers.environment.insert(
            "TASKER_SERVICE_TEST_SERVICE_URL".into(),
            "http://localhost:9".into(),
        );
        let config = Config::new(&layers).unwrap();
        assert_eq!(config.grants("secretive"), ["keystore"]);
        assert!(config.grants("other").is_empty());
        assert_eq!(config.remotes()["test-service"], "http://localhost:9");
        assert_eq!(config.port().unwrap(), 4000);
    }
}
