//! Workers and their leases: one row a worker.

use async_trait::async_trait;
use tasker_adaptor::{NewWorker, Reaped, StorageError, Timestamp, WorkerId, Workers};

use super::reap;
use crate::PostgresStorage;
use crate::row::get;
use crate::session::{long, text, uuid};
use crate::text::to_column;

const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8";
const REGISTER: &str = "INSERT INTO tasker.workers (id, name, state, registered_at, expires_at) VALUES ($1, $2, 'live', $3, $4) ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at WHERE workers.state = 'live' RETURNING 1";
const HEARTBEAT: &str =
    "UPDATE tasker.workers SET expires_at = $2 WHERE id = $1 AND state = 'live' RETURNING 1";

#[async_trait]
impl Workers for PostgresStorage {
    async fn server_time(&self, _host_now: Timestamp) -> Result<Timestamp, StorageError> {
        let rows = self.lease_query(NOW, &[]).await?;
        match rows.first() {
            Some(row) => get(row, 0).map(Timestamp::from_millis),
            None => Err(StorageError::corrupt("the server's time", "no answer")),
        }
    }

    async fn register(&self, worker: NewWorker) -> Result<(), StorageError> {
        self.patience().lease(worker.lease_ms);
        let id = worker.id.as_uuid();
        let name = to_column(&worker.name);
        let (now, expires) = (
            worker.now.as_millis(),
            worker.now.plus_millis(worker.lease_ms).as_millis(),
        );
        let params = [uuid(&id), text(&name), long(&now), long(&expires)];
        let rows = self.lease_query(REGISTER, &params).await?;
        if rows.is_empty() {
            return Err(StorageError::Misuse {
                what: format!(
                    "worker id {} is used up: it was declared dead; take a new one",
                    worker.id
                ),
            });
        }
        Ok(())
    }

    async fn heartbeat(
        &self,
        worker: WorkerId,
        now: Timestamp,
        lease_ms: i64,
    ) -> Result<bool, StorageError> {
        let expires = now.plus_millis(lease_ms).as_millis();
        let id = worker.as_uuid();
        let params = [uuid(&id), long(&expires)];
        Ok(!self.lease_query(HEARTBEAT, &params).await?.is_empty())
    }

    async fn retire(&self, worker: WorkerId, now: Timestamp) -> Result<(), StorageError> {
        reap::retire(self, worker, now).await
    }

    async fn reap(&self, by: WorkerId, now: Timestamp, max: usize) -> Result<Reaped, StorageError> {
        reap::reap(self, by, now, max).await
    }
}
