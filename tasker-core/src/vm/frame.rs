//! One frame's VM: its turns.

use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;
use tasker_adaptor::{CallSeq, Failure, Outcome, Timestamp};

use super::compile::limit_of;
use super::host::{FrameHost, Kernel};
use super::message::{Turn, TurnEnd, VmDeliver, VmStart};
use super::raw::{Ctx, Job, Runtime, Stopper, Thrown};
use super::read;
use crate::limits::Limits;

/// How many jobs count as one tick, so that a chain of trivial jobs ends too.
const JOBS_A_TICK: u32 = 1_000;

/// A frame in memory. Dropping it frees everything that it took, whatever state it is in.
pub struct Vm {
    runtime: Runtime,
    host: Rc<FrameHost>,
    limits: Arc<Limits>,
    ended: bool,
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm")
            .field("memory_bytes", &self.memory_bytes())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// What the prelude's `start` gets.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartData<'a> {
    eval: bool,
    tools: Vec<&'a str>,
    run: RunData<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RunData<'a> {
    id: &'a str,
    task: &'a str,
    version: &'a str,
    depth: u32,
    correlation_id: Option<&'a str>,
    labels: &'a std::collections::BTreeMap<String, String>,
}

impl Vm {
    /// Runs the first turn in a pristine realm.
    pub(super) fn start(runtime: Runtime, host: Rc<FrameHost>, start: &VmStart) -> (Self, Turn) {
        host.begin_frame(start);
        let mut vm = Self {
            runtime,
            host,
            limits: start.limits.clone(),
            ended: false,
        };
        vm.runtime
            .arm(start.limits.memory_bytes, start.limits.stack_bytes);
        let turn = vm.turn(start.time, |vm, ctx| {
            let begun = vm.begin(ctx, start);
            if begun.is_err() && !vm.is_over() {
                vm.host.log_uncaught(ctx);
            }
            vm.drain(ctx);
        });
        (vm, turn)
    }

    fn begin(&self, ctx: Ctx<'_>, start: &VmStart) -> Result<(), Thrown> {
        let run = &start.run;
        let data = StartData {
            eval: start.limits.eval,
            tools: start.tools.names().collect(),
            run: RunData {
                id: &run.id,
                task: &run.task,
                version: &run.version,
                depth: run.depth,
                correlation_id: run.correlation_id.as_deref(),
                labels: &run.labels,
            },
        };
        let data = serde_json::to_string(&data).unwrap_or_else(|_| "{}".to_owned());
        let data = read::value(ctx, &data)?;
        let name = ctx.string(start.program.name.as_str())?;
        let Ok(input) = read::value(ctx, start.input.text()) else {
            let failure = super::capture::pending_failure(ctx);
            self.host.end(TurnEnd::Failed(Failure::new(
                "Error",
                format!("the input cannot be given to the task: {failure}"),
            )));
            return Ok(());
        };
        let Some(kernel) = self.kernel() else {
            return Err(ctx.throw_type("the realm is not ready"));
        };
        ctx.kept(&kernel.start).call(&[&data, &name, &input])?;
        Ok(())
    }

    fn kernel(&self) -> Option<Rc<Kernel>> {
        self.host.kernel.borrow().clone()
    }

    /// Delivers settled children, one after the other, the job queue run dry after each.
    /// Children that are not open (cleared timers, a frame that has ended) are passed over.
    pub fn deliver(&mut self, deliver: &VmDeliver) -> Turn {
        self.turn(deliver.time, |vm, ctx| {
            for (seq, outcome) in &deliver.items {
                if vm.is_over() {
                    break;
                }
                vm.settle(ctx, *seq, outcome);
                vm.drain(ctx);
            }
        })
    }

    fn settle(&self, ctx: Ctx<'_>, seq: CallSeq, outcome: &Outcome) {
        if let Err(Thrown) = self.host.settle(ctx, seq, outcome)
            && self.runtime.tripped().is_none()
        {
            self.host.log_uncaught(ctx);
        }
    }

    /// Has what its next turn touches brought into the processor's caches, without waiting for it.
    pub(crate) fn prefetch(&self) {
        self.runtime.prefetch();
    }

    /// Bytes of memory that the VM has taken.
    pub fn memory_bytes(&self) -> usize {
        self.runtime.memory_bytes()
    }

    /// By which a watchdog's thread ends the turn under way.
    pub fn stopper(&self) -> Stopper {
        self.runtime.stopper()
    }

    fn is_over(&self) -> bool {
        self.ended || self.host.has_ended() || self.runtime.tripped().is_some()
    }

    /// Runs jobs until there are none, and reports rejections that nobody handles (whose reading may make jobs again).
    fn drain(&self, ctx: Ctx<'_>) {
        loop {
            self.run_jobs(ctx);
            if self.runtime.tripped().is_some() || !self.host.log_unhandled(ctx) {
                break;
            }
        }
    }

    fn run_jobs(&self, ctx: Ctx<'_>) {
        let mut jobs = 0u32;
        while self.runtime.tripped().is_none() {
            match ctx.run_job() {
                Job::None => break,
                Job::Ran => {}
                Job::Threw => {
                    if self.runtime.tripped().is_none() {
                        self.host.log_uncaught(ctx);
                    }
                }
            }
            jobs += 1;
            if jobs.is_multiple_of(JOBS_A_TICK) {
                ctx.tick();
            }
        }
    }

    fn turn(&mut self, time: Timestamp, work: impl FnOnce(&Self, Ctx<'_>)) -> Turn {
        self.runtime.set_tick_limit(self.limits.turn_ticks);
        self.host.begin_turn(time);
        if !self.is_over() {
            let ctx = self.runtime.enter();
            work(self, ctx);
        }
        let end = self.end();
        self.ended = end != TurnEnd::Waiting;
        let (made, dropped, logs) = self.host.take_made();
        Turn {
            made,
            dropped,
            logs,
            end,
        }
    }

    fn end(&self) -> TurnEnd {
        if let Some(trip) = self.runtime.tripped() {
            return TurnEnd::Failed(limit_of(trip).failure(&self.limits));
        }
        if let Some(outcome) = self.host.take_outcome() {
            return outcome;
        }
        if self.ended {
            return TurnEnd::Failed(Failure::new(
                "InvalidStateError",
                "the frame has ended; start it anew to run it again",
            ));
        }
        if self.host.is_waiting() {
            self.runtime.hold_arenas();
            return TurnEnd::Waiting;
        }
        TurnEnd::Failed(Failure::new(
            "NeverSettlesError",
            "the task waits for a promise that can never settle: no call, timer or signal is open; \
             look for a promise whose resolve is never called, or a chain that was returned without being awaited",
        ))
    }
}
