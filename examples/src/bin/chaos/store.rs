//! The database that all processes share.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tasker_adaptor_postgres::PostgresStorage;
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::Storage;
use tokio_postgres::NoTls;

use crate::options::{Kind, Options};

/// Names the server to the worker processes: a URL may hold a password, which a command line would show.
pub(crate) const URL: &str = "TASKER_TEST_POSTGRES_URL";

/// The server of the environment.
pub(crate) fn url() -> Result<String, Box<dyn Error>> {
    std::env::var(URL)
        .or_else(|_| std::env::var("DATABASE_URL"))
        .map_err(|_| {
            format!("set {URL} or DATABASE_URL to a database that may be written to").into()
        })
}

/// Opens it; every process does. The server is the one at this URL, or that of the environment.
pub(crate) async fn open(
    options: &Options,
    at: Option<&str>,
) -> Result<Arc<dyn Storage>, Box<dyn Error>> {
    Ok(match options.kind {
        Kind::Sqlite => Arc::new(SqliteStorage::open(options.folder.join("chaos.db")).await?),
        Kind::Postgres => {
            let url = at.map_or_else(url, |url| Ok(url.to_owned()))?;
            let options = PostgresStorage::options(&url)
                .schema(&options.schema)
                .reply_timeout(Duration::from_millis(options.lease_ms * 2));
            Arc::new(options.connect().await?)
        }
    })
}

/// Leaves nothing in a server that was there before.
pub(crate) async fn clean(options: &Options) -> Result<(), Box<dyn Error>> {
    if options.kind == Kind::Postgres {
        let (client, connection) = tokio_postgres::connect(&url()?, NoTls).await?;
        let connection = tokio::spawn(connection);
        let schema = options.schema.replace('"', "\"\"");
        client
            .batch_execute(&format!("DROP SCHEMA IF EXISTS \"{schema}\" CASCADE"))
            .await?;
        connection.abort();
    }
    Ok(())
}
