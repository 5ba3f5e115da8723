//! `tasker trace`: the call tree of a run with its times.

use tasker_core::{Clock, SystemClock, TaskRunId};

use super::Here;
use super::tree::bars;
use crate::error::CliError;

/// Prints the tree.
pub(super) async fn perform(here: &Here, id: TaskRunId) -> Result<(), CliError> {
    let engine = here.client().await?;
    let trace = engine.run(id).await?.trace().await?;
    here.output.answer(&trace, || {
        bars(&trace, SystemClock::default().now()).join("\n")
    })
}
