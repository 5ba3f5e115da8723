//! Sealed values.

use async_trait::async_trait;
use tasker_adaptor::{KeyStore, SealedValue, StorageError, Timestamp};
use tokio_postgres::Row;

use crate::PostgresStorage;
use crate::row::get;
use crate::session::{bytes, long, text};
use crate::text::{from_column, to_column};

const PUT: &str = "INSERT INTO tasker.keystore (namespace, key, bytes, key_id, updated_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (namespace, key) DO UPDATE SET bytes = excluded.bytes, key_id = excluded.key_id, updated_at = excluded.updated_at";
const REPLACE: &str = "UPDATE tasker.keystore SET bytes = $3, key_id = $4, updated_at = $5 WHERE namespace = $1 AND key = $2 AND bytes = $6 RETURNING 1";
const READ: &str =
    "SELECT bytes, key_id, updated_at FROM tasker.keystore WHERE namespace = $1 AND key = $2";
const DELETE: &str = "DELETE FROM tasker.keystore WHERE namespace = $1 AND key = $2 RETURNING 1";
const KEYS: &str = "SELECT key FROM tasker.keystore WHERE namespace = $1";
const NAMESPACES: &str = "SELECT DISTINCT namespace FROM tasker.keystore";

#[async_trait]
impl KeyStore for PostgresStorage {
    async fn put_sealed(
        &self,
        namespace: &str,
        key: &str,
        value: SealedValue,
    ) -> Result<(), StorageError> {
        let (namespace, key, key_id) = (
            to_column(namespace),
            to_column(key),
            to_column(&value.key_id),
        );
        let time = value.updated_at.as_millis();
        let params = [
            text(&namespace),
            text(&key),
            bytes(&value.bytes),
            text(&key_id),
            long(&time),
        ];
        self.session().await?.query(PUT, &params).await?;
        Ok(())
    }

    async fn replace_sealed(
        &self,
        namespace: &str,
        key: &str,
        expected: &[u8],
        value: SealedValue,
    ) -> Result<bool, StorageError> {
        let (namespace, key, key_id) = (
            to_column(namespace),
            to_column(key),
            to_column(&value.key_id),
        );
        let time = value.updated_at.as_millis();
        let params = [
            text(&namespace),
            text(&key),
            bytes(&value.bytes),
            text(&key_id),
            long(&time),
            bytes(&expected),
        ];
        Ok(!self
            .session()
            .await?
            .query(REPLACE, &params)
            .await?
            .is_empty())
    }

    async fn sealed(
        &self,
        namespace: &str,
        key: &str,
    ) -> Result<Option<SealedValue>, StorageError> {
        let params = (to_column(namespace), to_column(key));
        let rows = self
            .session()
            .await?
            .query(READ, &[text(&params.0), text(&params.1)])
            .await?;
        let read = |row: &Row| {
            Ok(SealedValue {
                bytes: get(row, 0)?,
                key_id: from_column(get(row, 1)?),
                updated_at: Timestamp::from_millis(get(row, 2)?),
            })
        };
        rows.first().map(read).transpose()
    }

    async fn delete_sealed(&self, namespace: &str, key: &str) -> Result<bool, StorageError> {
        let params = (to_column(namespace), to_column(key));
        let rows = self
            .session()
            .await?
            .query(DELETE, &[text(&params.0), text(&params.1)])
            .await?;
        Ok(!rows.is_empty())
    }

    async fn sealed_keys(&self, namespace: &str) -> Result<Vec<String>, StorageError> {
        let namespace = to_column(namespace);
        sorted(
            &self
                .session()
                .await?
                .query(KEYS, &[text(&namespace)])
                .await?,
        )
    }

    async fn sealed_namespaces(&self) -> Result<Vec<String>, StorageError> {
        sorted(&self.session().await?.query(NAMESPACES, &[]).await?)
    }
}

/// In byte order of the texts themselves, not of their columns.
fn sorted(rows: &[Row]) -> Result<Vec<String>, StorageError> {
    let mut texts: Vec<String> = rows
        .iter()
        .map(|row| get(row, 0).map(from_column))
        .collect::<Result<_, _>>()?;
    texts.sort_unstable();
    Ok(texts)
}
