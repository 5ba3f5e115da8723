//! Driving by hand: one ready stack run through one turn or one call, by the same steps as the automatic engine.

use tasker_adaptor::{CallFinish, StackKind, StackRunId};
use tokio::sync::oneshot;

use super::core::Core;

/// What [`crate::Engine::process_next`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processed {
    /// Nothing was ready.
    Nothing,
    /// This frame made a turn (or was blocked).
    Frame(StackRunId),
    /// This call was asked, and its answer recorded.
    Call(StackRunId),
}

/// A request to process something.
pub(crate) struct ManualRequest {
    /// Only this row; `None`: what is next.
    pub(crate) only: Option<StackRunId>,
    pub(crate) done: oneshot::Sender<Processed>,
}

/// A request under way.
pub(crate) struct ManualStep {
    only: Option<StackRunId>,
    done: oneshot::Sender<Processed>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Frames are looked for first.
    Frames,
    /// Then calls.
    Calls,
    /// Then due timers, which may make a frame ready.
    Timers,
    /// Frames once more, after timers were fired.
    FramesAgain,
    /// Something was claimed and is worked on.
    Working,
}

impl Core {
    pub(crate) fn manual_requested(&mut self, request: ManualRequest) {
        if self.manual.is_some() {
            // One at a time: the caller holds the engine's lock, so this is a request that was given up before.
            self.manual = None;
        }
        self.manual = Some(ManualStep {
            only: request.only,
            done: request.done,
            stage: Stage::Frames,
        });
        self.claim_frames(1, request.only);
    }

    /// How many rows a claim for the request found.
    pub(crate) fn manual_claimed(&mut self, found: usize) {
        let Some(step) = &mut self.manual else { return };
        let only = step.only;
        if found > 0 {
            step.stage = Stage::Working;
            return;
        }
        match step.stage {
            Stage::Frames => {
                step.stage = Stage::Calls;
                self.claim_calls(1, only);
            }
            Stage::Calls => {
                step.stage = Stage::Timers;
                self.want_due = true;
                self.next_due = Some(self.shared.clock.now());
                self.fire_timers();
            }
            Stage::FramesAgain => self.manual_done(Processed::Nothing),
            Stage::Timers | Stage::Working => {}
        }
    }

    /// Due timers were fired for the request: a frame may be ready now.
    pub(crate) fn manual_tick(&mut self) {
        let Some(step) = &mut self.manual else { return };
        if step.stage == Stage::Timers && !self.firing {
            step.stage = Stage::FramesAgain;
            let only = step.only;
            self.claim_frames(1, only);
        }
    }

    pub(crate) fn manual_frame_over(&mut self, frame: StackRunId) {
        self.manual_over(StackKind::Frame, frame);
    }

    pub(crate) fn manual_call_over(&mut self, finish: &CallFinish) {
        self.manual_over(StackKind::Call, finish.call);
    }

    fn manual_over(&mut self, kind: StackKind, id: StackRunId) {
        if self
            .manual
            .as_ref()
            .is_some_and(|step| step.stage == Stage::Working)
        {
            self.manual_done(match kind {
                StackKind::Call => Processed::Call(id),
                _ => Processed::Frame(id),
            });
        }
    }

    fn manual_done(&mut self, processed: Processed) {
        if let Some(step) = self.manual.take() {
            let _ = step.done.send(processed);
        }
    }
}
