//! The database that all processes share.

use std::error::Error;
use std::sync::Arc;

use tasker_adaptor_postgres::PostgresStorage;
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::Storage;

use crate::options::{Kind, Options};

/// Opens it; every process does.
pub(crate) async fn open(options: &Options) -> Result<Arc<dyn Storage>, Box<dyn Error>> {
    Ok(match options.kind {
        Kind::Sqlite => Arc::new(SqliteStorage::open(options.folder.join("chaos.db")).await?),
        Kind::Postgres => {
            let url = std::env::var("TASKER_TEST_POSTGRES_URL")
                .or_else(|_| std::env::var("DATABASE_URL"))
                .map_err(|_| "set TASKER_TEST_POSTGRES_URL or DATABASE_URL to a database that may be written to")?;
            // One schema a folder, so that two of these do not meet.
            let name: String = options
                .folder
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default()
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
                .take(48)
                .collect();
            Arc::new(PostgresStorage::options(&url).schema(format!("chaos_{name}")).connect().await?)
        }
    })
}
