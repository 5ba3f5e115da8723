//! Every setting there is: its name, its variables, its default, and whether it may be seen.

/// A setting that can be set.
pub(super) struct Known {
    /// Its name, and its place in `tasker.toml`.
    pub(super) name: &'static str,
    /// Environment variables, the first one wins.
    pub(super) env: &'static [&'static str],
    /// What holds without it.
    pub(super) default: Option<&'static str>,
    /// Who may see it.
    pub(super) secret: Secrecy,
}

/// Who may see a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// Anybody may see it.
    Open,
    /// A URL: its password is hidden.
    Url,
    /// Hidden.
    Secret,
}

const fn open(
    name: &'static str,
    env: &'static [&'static str],
    default: Option<&'static str>,
) -> Known {
    Known {
        name,
        env,
        default,
        secret: Secrecy::Open,
    }
}

const fn secret(name: &'static str, env: &'static [&'static str]) -> Known {
    Known {
        name,
        env,
        default: None,
        secret: Secrecy::Secret,
    }
}

/// Every setting.
pub(super) const KNOWN: &[Known] = &[
    Known {
        name: "database",
        env: &["DATABASE_URL", "SQLITE_DB_PATH"],
        default: Some("sqlite:tasker.db"),
        secret: Secrecy::Url,
    },
    open("tasks", &["TASKS_DIRECTORY"], Some("tasks")),
    open("services", &["TASKER_SERVICES_DIR"], Some("services")),
    open(
        "wall",
        &["TASKER_WALL"],
        Some(if cfg!(target_os = "linux") {
            "process"
        } else {
            "in-process"
        }),
    ),
    open(
        "environment",
        &["TASKER_ENV", "DENO_ENV"],
        Some("development"),
    ),
    open("log.level", &["LOG_LEVEL"], Some("warn")),
    open("log.format", &["LOG_FORMAT"], None),
    open("serve.bind", &["TASKER_BIND"], Some("127.0.0.1")),
    open("serve.port", &["PORT"], Some("3100")),
    open("serve.services", &["TASKER_SERVICES"], None),
    open("serve.name", &["SERVICE_NAME"], None),
    open("serve.cors_origins", &["TASKER_CORS_ORIGINS"], None),
    open(
        "serve.header_timeout_secs",
        &["TASKER_HEADER_TIMEOUT_SECS"],
        Some("10"),
    ),
    open(
        "serve.body_timeout_secs",
        &["TASKER_BODY_TIMEOUT_SECS"],
        Some("30"),
    ),
    open("serve.drain_secs", &["TASKER_DRAIN_SECS"], Some("10")),
    open(
        "serve.max_connections",
        &["TASKER_MAX_CONNECTIONS"],
        Some("1024"),
    ),
    open("serve.lease_ms", &["TASKER_LEASE_MS"], Some("30000")),
    secret("serve.token", &["TASKER_TOKEN", "SERVICE_AUTH_TOKEN"]),
    secret("keystore.master_key", &["TASKER_MASTER_KEY"]),
    secret(
        "keystore.previous_master_keys",
        &["TASKER_PREVIOUS_MASTER_KEYS"],
    ),
    secret("openai.api_key", &["OPENAI_API_KEY"]),
    open("openai.base_url", &["OPENAI_BASE_URL"], None),
    open("openai.organization", &["OPENAI_ORG_ID"], None),
    open("openai.project", &["OPENAI_PROJECT_ID"], None),
    secret("gapi.account", &["GAPI_SERVICE_ACCOUNT_JSON", "GAPI_KEY"]),
    secret("gapi.admin_email", &["GAPI_ADMIN_EMAIL"]),
    open("supabase.url", &["SUPABASE_URL", "EXT_SUPABASE_URL"], None),
    secret(
        "supabase.service_role_key",
        &[
            "SUPABASE_SERVICE_ROLE_KEY",
            "EXT_SUPABASE_SERVICE_ROLE_KEY",
            "SUPABASE_SERVICE_KEY",
        ],
    ),
    secret(
        "supabase.anon_key",
        &["SUPABASE_ANON_KEY", "EXT_SUPABASE_ANON_KEY"],
    ),
    secret("websearch.api_key", &["WEBSEARCH_API_KEY"]),
    secret("websearch.engine_id", &["WEBSEARCH_ENGINE_ID"]),
    open("http.allow", &["TASKER_HTTP_ALLOW"], None),
];
