//! `call`: one question and its answer in a VM that is in memory, without storage.

use std::sync::Arc;

use rquickjs::{Context, Ctx, Function, Runtime};
use tasker_core::adaptor::CallSeq;
use tasker_core::service::ServiceStyle;
use tasker_core::task::{Module, ModuleFormat, Program};
use tasker_core::vm::{BytecodeCache, RunInfo, ToolNames, Turn, Vm, VmDeliver, VmPool, VmStart};
use tasker_core::{Json, Limits, Outcome, TaskName, TaskVersion, Timestamp};

use super::{Problem, Size};
use crate::clock::Stopwatch;
use crate::figure::{Figure, Goal};

/// Alternating pieces of both loops, so that noise of the machine meets both.
const PIECES: u32 = 20;

const TASK: &str = "module.exports = async function loop(input, { tools }) {
    for (let i = 0; ; i++) await tools.bench.step({ id: i, customer: 'c-17', amount: 12.5, tags: ['a', 'b'], note: 'a step of a chain' });
}";

/// Object literal, `JSON.parse` of the answer, `await`: what QuickJS itself cannot do without.
const BARE: &str = "(async function loop(count, text) {
    let sum = 0;
    for (let i = 0; i < count; i++) {
        const args = { id: i, customer: 'c-17', amount: 12.5, tags: ['a', 'b'], note: 'a step of a chain' };
        const answer = await Promise.resolve(JSON.parse(text));
        sum += answer.amount + args.amount;
    }
    return sum;
})";

const ANSWER: &str = r#"{"id":7,"customer":"c-17","amount":12.5,"tags":["a","b"],"note":"the answer to a step of a chain","ok":true}"#;

/// A task that asks for ever, in a VM of its own.
pub struct HotVm {
    vm: Vm,
    asked: u32,
    answer: Outcome,
}

impl HotVm {
    /// Runs the task to its first call.
    pub fn start() -> Result<Self, Problem> {
        let start = VmStart {
            program: Arc::new(Program {
                name: TaskName::new("loop"),
                version: TaskVersion::new("v1"),
                entry: Module {
                    path: "loop.js".into(),
                    source: TASK.into(),
                    format: ModuleFormat::CommonJs,
                },
                modules: Vec::new(),
                bare_function: None,
            }),
            input: Json::null(),
            seed: [7; 32],
            time: Timestamp::from_millis(1_700_000_000_000),
            tools: Arc::new(ToolNames::new([("bench".to_owned(), ServiceStyle::Plain)])),
            run: RunInfo::default(),
            limits: Arc::new(Limits {
                calls: u32::MAX,
                ..Limits::default()
            }),
        };
        let (vm, turn) = VmPool::new(Arc::new(BytecodeCache::new()), 0).start(&start);
        let hot = Self {
            vm,
            asked: 1,
            answer: Outcome::Completed(Some(Json::parse(ANSWER)?)),
        };
        hot.expect_one_call(&turn)?;
        Ok(hot)
    }

    /// Answers the open call and runs to the next one.
    pub fn round_trip(&mut self) -> Result<(), Problem> {
        let turn = self.vm.deliver(&VmDeliver {
            time: Timestamp::from_millis(1_700_000_000_000),
            items: vec![(CallSeq(self.asked), self.answer.clone())],
        });
        self.asked += 1;
        self.expect_one_call(&turn)
    }

    fn expect_one_call(&self, turn: &Turn) -> Result<(), Problem> {
        if turn.made.len() == 1 {
            return Ok(());
        }
        Err(format!("turn {} did not make one call: {turn:?}", self.asked).into())
    }
}

/// The same without bridge: a loop in bare QuickJS.
pub struct BareLoop {
    runtime: Runtime,
    context: Context,
}

impl BareLoop {
    /// A runtime with a full context.
    pub fn start() -> Result<Self, Problem> {
        let runtime = Runtime::new()?;
        let context = Context::full(&runtime)?;
        Ok(Self { runtime, context })
    }

    /// Runs the loop this often, from its first turn to its last.
    pub fn run(&self, count: u32) -> Result<(), Problem> {
        self.context.with(|ctx: Ctx<'_>| -> rquickjs::Result<()> {
            let loop_function: Function<'_> = ctx.eval(BARE)?;
            loop_function.call::<_, rquickjs::Value<'_>>((count, ANSWER))?;
            Ok(())
        })?;
        while self.runtime.is_job_pending() {
            self.runtime
                .execute_pending_job()
                .map_err(|error| format!("the bare loop failed: {error:?}"))?;
        }
        Ok(())
    }
}

/// Round trips in a hot VM, without storage.
pub fn call(size: Size) -> Result<Figure, Problem> {
    let piece = size.of(200_000) / PIECES;
    let mut hot = HotVm::start()?;
    let bare = BareLoop::start()?;
    let (mut seconds, mut floor_seconds) = (0.0, 0.0);
    for number in 0..=PIECES {
        let watch = Stopwatch::start();
        for _ in 0..piece {
            hot.round_trip()?;
        }
        let hot_seconds = watch.seconds();
        let watch = Stopwatch::start();
        bare.run(piece)?;
        // The first piece of each warms the caches.
        if number > 0 {
            seconds += hot_seconds;
            floor_seconds += watch.seconds();
        }
    }
    let calls = f64::from(piece * PIECES);
    Ok(Figure::new(
        "call",
        (seconds * 1e6 / calls, "us/call"),
        floor_seconds * 1e6 / calls,
        Goal::AtMost(1.75, "at most 1.75 of literal + parse + await"),
        format!("{calls} round trips"),
    ))
}
