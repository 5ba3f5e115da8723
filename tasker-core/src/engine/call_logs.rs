//! Writing what a service says while its call is under way.

use tasker_adaptor::{StackRunId, TaskRunId};

use super::core::Shared;
use crate::service::CallLog;

/// Does `work`, and writes meanwhile what comes into `log`. All of it is written, or was refused, before the outcome of
/// the work is known to anybody: a person who reads the outcome finds the lines. A line that storage refuses is lost
/// with a warning; it never fails the call.
pub(super) async fn with_log<T>(
    shared: &Shared,
    (run, frame): (TaskRunId, StackRunId),
    log: &CallLog,
    work: impl Future<Output = T>,
) -> T {
    let work = async {
        let outcome = work.await;
        log.close();
        outcome
    };
    let writing = async {
        while let Some(lines) = log.next().await {
            let now = shared.clock.now();
            let written = shared.storage.append_logs(run, Some(frame), lines, now);
            if let Err(error) = written.await {
                tracing::warn!(%run, %error, "log lines of a call were not written");
            }
        }
    };
    let (outcome, ()) = tokio::join!(work, writing);
    outcome
}
