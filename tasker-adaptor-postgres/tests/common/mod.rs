//! A schema of its own for each test, in the database of `TASKER_TEST_POSTGRES_URL`.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::time::Duration;

use tasker_adaptor_postgres::{PostgresOptions, PostgresStorage};
use tokio_postgres::NoTls;
use uuid::Uuid;

/// How long a test waits for something before it says that it did not come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The database to test on.
pub fn url() -> String {
    std::env::var("TASKER_TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!(
            "TASKER_TEST_POSTGRES_URL is not set: run ./test.sh, which starts a PostgreSQL server for the tests, \
             or `.config/postgres.sh run cargo test -p tasker-adaptor-postgres`"
        )
    })
}

/// A schema that goes when this is dropped.
pub struct TestSchema {
    pub name: String,
    pub url: String,
}

impl TestSchema {
    pub fn new() -> Self {
        Self {
            name: format!("test_{}", Uuid::now_v7().simple()),
            url: url(),
        }
    }

    /// Options for it: small pool, no time lost on finding out about poolers.
    pub fn options(&self) -> PostgresOptions {
        self.options_at(&self.url)
    }

    pub fn options_at(&self, url: &str) -> PostgresOptions {
        PostgresStorage::options(url)
            .schema(&self.name)
            .pooler(tasker_adaptor_postgres::Pooler::Off)
    }

    pub async fn storage(&self) -> PostgresStorage {
        self.options().connect().await.unwrap()
    }

    /// A plain connection to look past the adaptor, with the schema first in its path.
    pub async fn client(&self) -> tokio_postgres::Client {
        let client = connect(&self.url).await;
        let path = format!("SET search_path TO \"{}\"", self.name);
        client.batch_execute(&path).await.unwrap();
        client
    }
}

impl Drop for TestSchema {
    fn drop(&mut self) {
        let (url, sql) = (
            self.url.clone(),
            format!("DROP SCHEMA IF EXISTS \"{}\" CASCADE", self.name),
        );
        // A test that failed may leave its server stopped: then there is nothing to clean.
        let cleaned = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.ok()?.block_on(async {
                let (client, connection) = tokio_postgres::connect(&url, NoTls).await.ok()?;
                let connection = tokio::spawn(connection);
                client.batch_execute("SET lock_timeout = '5s'").await.ok()?;
                client.batch_execute(&sql).await.ok()?;
                connection.abort();
                Some(())
            })
        });
        let _ = cleaned.join();
    }
}

pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
