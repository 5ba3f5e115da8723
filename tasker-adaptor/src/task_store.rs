//! Published tasks.

use async_trait::async_trait;

use crate::{Json, StorageError, TaskFunction, TaskName, TaskVersion, Timestamp};

/// A task to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// Name.
    pub name: TaskName,
    /// Hash of all that follows.
    pub version: TaskVersion,
    /// Source text of the entry module.
    pub source: String,
    /// Other modules: an object from path to source text.
    pub modules: Option<Json>,
    /// Schema, format `json`.
    pub schema: Json,
    /// Options, an object.
    pub options: Json,
}

/// What publishing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// A version that was not there.
    Created,
    /// The version was there and was not the current one; it is now.
    Restored,
    /// The version was the current one already.
    Unchanged,
}

/// Some tasks, ordered by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskPage {
    /// The current version of each.
    pub tasks: Vec<TaskFunction>,
    /// Give this as `after` to read on; `None` at the end.
    pub next: Option<TaskName>,
}

/// Tasks: publish, find, list.
#[async_trait]
pub trait TaskStore: Send + Sync + 'static {
    /// Does: stores the version if it is not there and makes it the current one of its name.
    /// Atomicity: one transaction. The current version is the one published last; `published_at` is `max(now, newest + 1 ms)`.
    /// Errors: `VersionConflict` when the version is there with another source.
    /// Tested by: `publish_is_idempotent`, `publish_moves_the_current_version`.
    async fn publish(&self, task: NewTask, now: Timestamp) -> Result<Published, StorageError>;

    /// Does: the current version (`version` = `None`) or that version of a task; `None` when there is none.
    /// Atomicity: one read. Errors: `Corrupt`. Tested by: `publish_moves_the_current_version`.
    async fn task(
        &self,
        name: &TaskName,
        version: Option<&TaskVersion>,
    ) -> Result<Option<TaskFunction>, StorageError>;

    /// Does: current versions ordered by name, after `after`, at most `max`.
    /// Atomicity: one read. Errors: `Corrupt`. Tested by: `tasks_are_listed_in_pages`.
    async fn tasks(&self, after: Option<&TaskName>, max: usize) -> Result<TaskPage, StorageError>;
}
