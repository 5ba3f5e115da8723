//! The engine of this process: its database and its services, as the settings say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tasker_adaptor_postgres::PostgresStorage;
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::adaptor::KeyStore;
use tasker_core::service::ServiceError;
use tasker_core::wall::Wall;
use tasker_core::{Engine, EngineBuilder, EngineError, Limits, Storage, StorageError};
use tasker_proxies::Secret;
use tasker_proxies::gapi::{Gapi, GapiOptions};
use tasker_proxies::http::{EgressRule, Http};
use tasker_proxies::http_client::HttpOptions;
use tasker_proxies::keystore::{Keystore, MasterKey};
use tasker_proxies::openai::{OpenAi, OpenAiOptions};
use tasker_proxies::remote::{Remote, RemoteOptions};
use tasker_proxies::supabase::{Supabase, SupabaseOptions};
use tasker_proxies::websearch::{DuckDuckGo, GoogleSearch, GoogleSearchOptions, WebSearch};

use crate::config::{Config, hide_password};
use crate::error::CliError;
use crate::overheard::Overheard;
use crate::registry;

/// A database address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    /// A file.
    Sqlite(String),
    /// A server.
    Postgres(String),
}

impl Database {
    /// Where the settings say it is.
    pub(crate) fn of(config: &Config) -> Result<Self, CliError> {
        let text = config.text("database");
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        let path = match text.strip_prefix("sqlite:") {
            Some(path) => path.strip_prefix("//").unwrap_or(path),
            None if has_scheme(text) => {
                return Err(config.wrong("database", "has an unknown scheme; use sqlite:FILE or postgres://user:password@host/database"));
            }
            None => text,
        };
        if path.is_empty() {
            return Err(config.wrong(
                "database",
                "names no file; use sqlite:FILE or postgres://user:password@host/database",
            ));
        }
        Ok(Self::Sqlite(path.to_owned()))
    }

    /// Opens it, making or migrating its tables unless `migrate` is false.
    pub(crate) async fn open(&self, migrate: bool) -> Result<Arc<dyn Storage>, CliError> {
        self.try_open(migrate)
            .await
            .map_err(|source| CliError::Database {
                database: self.shown(),
                source,
            })
    }

    async fn try_open(&self, migrate: bool) -> Result<Arc<dyn Storage>, StorageError> {
        Ok(match self {
            Self::Sqlite(path) => {
                Arc::new(SqliteStorage::options(path).migrate(migrate).open().await?)
            }
            Self::Postgres(url) => Arc::new(
                PostgresStorage::options(url)
                    .migrate(migrate)
                    .connect()
                    .await?,
            ),
        })
    }

    /// A file that is not there yet.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Sqlite(path) if !Path::new(path).exists())
    }

    /// For people.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{path}"),
            Self::Postgres(url) => hide_password(url),
        }
    }
}

/// Whether a text that is no `sqlite:` address begins as one of something else. One letter is a drive.
fn has_scheme(text: &str) -> bool {
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        scheme.len() > 1
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

/// Opens the database of the settings.
pub(crate) async fn storage(config: &Config) -> Result<Arc<dyn Storage>, CliError> {
    Database::of(config)?.open(true).await
}

/// A service in another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its name.
    pub(crate) name: String,
    /// Its address.
    pub(crate) url: String,
    /// Only tasks with a grant may call it.
    pub(crate) private: bool,
}

/// Names that are no services of tasks.
const NO_SERVICES: [&str; 4] = [
    "deno-executor",
    "simple-stack-processor",
    "task-executor",
    "admin-debug",
];

/// An engine to be started, with every service that the settings allow, and these in other processes, which stand in for
/// ours of the same name.
pub(crate) fn builder(
    config: &Config,
    storage: Arc<dyn Storage>,
    peers: &[Peer],
) -> Result<EngineBuilder, CliError> {
    let mut builder = Engine::builder()
        .shared_storage(Arc::clone(&storage))
        .wall(wall(config)?.unwrap_or(Wall::in_process()));
    let elsewhere = |name: &str| peers.iter().any(|peer| peer.name == name);
    if !elsewhere("keystore") {
        builder = builder.private_service(Overheard(keystore(config, storage)?));
    }
    if !elsewhere("openai") {
        builder = builder.service(openai(config)?);
    }
    if !elsewhere("websearch") {
        builder = builder.service(websearch(config)?);
    }
    if !elsewhere("gapi") {
        builder = builder.service(gapi(config)?);
    }
    if let Some(supabase) = supabase(config)?.filter(|_| !elsewhere("supabase")) {
        builder = builder.service(supabase);
    }
    let hosts = config.list("http.allow");
    if !hosts.is_empty() && !elsewhere("http") {
        let rules = hosts.into_iter().map(egress_rule).collect();
        builder = builder.service(Http::new(rules, HttpOptions::default())?);
    }
    for peer in peers {
        let mut options = RemoteOptions::new(&peer.name, &peer.url);
        options.token = config.get("serve.token").map(Secret::new);
        let remote = Remote::new(options)?;
        builder = if peer.name == "keystore" {
            builder.private_service(Overheard(remote))
        } else if peer.private {
            builder.private_service(remote)
        } else {
            builder.service(remote)
        };
    }
    Ok(builder)
}

/// The wall of processes, where the settings ask for it.
fn wall(config: &Config) -> Result<Option<Wall>, CliError> {
    match config.text("wall") {
        "process" => Ok(Some(Wall::process())),
        "in-process" => Ok(None),
        _ => Err(config.wrong("wall", "is no wall; walls are process and in-process")),
    }
}

/// The program that runs task code of requests in processes of its own: this one, where the settings ask for that wall.
pub(crate) fn sandbox_program(config: &Config) -> Result<Option<PathBuf>, CliError> {
    if wall(config)?.is_some() {
        let program = std::env::current_exe();
        return Ok(Some(program.map_err(CliError::io(
            "the path of this program, which is that of its sandbox processes, could not be read",
        ))?));
    }
    Ok(None)
}

/// Starts an engine.
pub(crate) async fn start(builder: EngineBuilder) -> Result<Engine, CliError> {
    builder.start().await.map_err(|error| match error {
        EngineError::Wall(error) => CliError::Wall(error),
        error => error.into(),
    })
}

/// Services in other processes: those of the environment, then those that servers of the folder list. Of the built-in ones
/// only those that `ours` says are not offered here.
pub(crate) fn peers(
    config: &Config,
    dir: &Path,
    ours: impl Fn(&str) -> bool,
) -> Result<Vec<Peer>, CliError> {
    let mut peers: Vec<Peer> = Vec::new();
    for (name, url) in config.remotes() {
        let fit = url::Url::parse(url)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !fit {
            let variable = name.to_ascii_uppercase().replace('-', "_");
            return Err(CliError::Setting(format!(
                "TASKER_SERVICE_{variable}_URL is no URL of a service; it looks like http://localhost:3104"
            )));
        }
        peers.push(Peer {
            name: name.clone(),
            url: url.clone(),
            private: name == "keystore",
        });
    }
    for entry in registry::read(dir) {
        let built_in = registry::PLACES.contains(&entry.name.as_str());
        let taken = peers.iter().any(|peer| peer.name == entry.name);
        let offered_here = built_in && ours(&entry.name);
        if !taken && !offered_here {
            peers.push(Peer {
                private: entry.private || entry.name == "keystore",
                name: entry.name,
                url: entry.url,
            });
        }
    }
    peers.retain(|peer| !NO_SERVICES.contains(&peer.name.as_str()));
    Ok(peers)
}

/// `api.example.com` allows GET and HEAD by https; `POST api.example.com` allows every method.
fn egress_rule(text: &str) -> EgressRule {
    match text.split_once(' ') {
        Some((methods, host)) => EgressRule::host(host.trim()).methods(methods.split('|')),
        None => EgressRule::host(text),
    }
}

/// The keystore on this database, with the master keys of the settings.
pub(crate) fn keystore(config: &Config, storage: Arc<dyn Storage>) -> Result<Keystore, CliError> {
    let parse = |name: &str, text: &str| {
        MasterKey::parse(&Secret::new(text))
            .map_err(|error| config.wrong(name, &format!("is no master key: {error}")))
    };
    let current = config
        .get("keystore.master_key")
        .map(|text| parse("keystore.master_key", text))
        .transpose()?;
    let previous = config
        .list("keystore.previous_master_keys")
        .into_iter()
        .map(|text| parse("keystore.previous_master_keys", text))
        .collect::<Result<Vec<MasterKey>, CliError>>()?;
    let store: Arc<dyn KeyStore> = storage;
    Ok(Keystore::new(store, current, previous))
}

fn openai(config: &Config) -> Result<OpenAi, ServiceError> {
    let mut options = OpenAiOptions::default();
    let text = |name| config.get(name).map(str::to_owned);
    if let Some(url) = text("openai.base_url") {
        options.base_url = url;
    }
    options.api_key = config.get("openai.api_key").map(Secret::new);
    options.organization = text("openai.organization");
    options.project = text("openai.project");
    OpenAi::new(options)
}

/// Google where both its settings are there, else DuckDuckGo.
fn websearch(config: &Config) -> Result<WebSearch, ServiceError> {
    let secret = |name| config.get(name).map(Secret::new);
    Ok(
        match (secret("websearch.api_key"), secret("websearch.engine_id")) {
            (Some(key), Some(engine)) => WebSearch::new(GoogleSearch::new(GoogleSearchOptions {
                api_key: Some(key),
                engine_id: Some(engine),
                ..GoogleSearchOptions::default()
            })?),
            _ => WebSearch::new(DuckDuckGo::new(HttpOptions::default())?),
        },
    )
}

fn gapi(config: &Config) -> Result<Gapi, ServiceError> {
    Gapi::new(GapiOptions {
        account: config.get("gapi.account").map(Secret::new),
        admin_email: config.get("gapi.admin_email").map(Secret::new),
        ..GapiOptions::default()
    })
}

fn supabase(config: &Config) -> Result<Option<Supabase>, ServiceError> {
    let Some(url) = config.get("supabase.url") else {
        return Ok(None);
    };
    let mut options = SupabaseOptions::new(url);
    let key = config
        .get("supabase.service_role_key")
        .or_else(|| config.get("supabase.anon_key"));
    options.key = key.map(Secret::new);
    Supabase::new(options).map(Some)
}

/// The limits that every engine of this program has.
pub(crate) fn limits() -> Limits {
    Limits::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn database(text: &str) -> Result<Database, String> {
        let mut layers = Layers::default();
        layers.flag("--database", "database", Some(text));
        Database::of(&Config::new(&layers).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn database_addresses_are_read() {
        let sqlite = |path: &str| Ok(Database::Sqlite(path.to_owned()));
        assert_eq!(database("sqlite:tasker.db"), sqlite("tasker.db"));
        assert_eq!(database("sqlite:///var/a.db"), sqlite("/var/a.db"));
        assert_eq!(database("sqlite:/var/a.db"), sqlite("/var/a.db"));
        assert_eq!(database("data/a.db"), sqlite("data/a.db"));
        assert_eq!(
            database("postgres://h/d"),
            Ok(Database::Postgres("postgres://h/d".into()))
        );
        let error = database("mysql://me:planted@h/d").unwrap_err();
        assert!(
            error.contains("--database") && error.contains("postgres://"),
            "{error}"
        );
        assert!(!error.contains("planted"), "{error}");
        assert!(database("sqlite:").is_err());
        for wrong in ["postgres:/oops", "file:x.db", "mysql:x"] {
            let error = database(wrong).unwrap_err();
            assert!(error.contains("postgres://"), "{error}");
        }
        assert_eq!(database("C:/a.db"), sqlite("C:/a.db"));
        assert_eq!(database("./a:b.db"), sqlite("./a:b.db"));
    }
}
