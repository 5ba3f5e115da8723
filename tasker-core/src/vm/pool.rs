//! Realms made ready before they are wanted, and frames started in them.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::bridge::Op;
use super::cache::{BytecodeCache, Prelude};
use super::capture::PRELUDE;
use super::frame::Vm;
use super::host::{FrameHost, Kernel};
use super::message::{Turn, VmStart};
use super::prelude;
use super::raw::{Ctx, Runtime, Stopper, Thrown};

/// A pristine realm.
type Realm = (Runtime, Rc<FrameHost>);

/// The realms of one VM thread. Not to be shared: QuickJS stays on its thread.
pub struct VmPool {
    cache: Arc<BytecodeCache>,
    ready: VecDeque<Realm>,
    prepared: usize,
}

impl std::fmt::Debug for VmPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VmPool")
            .field("ready", &self.ready.len())
            .field("prepared", &self.prepared)
            .finish_non_exhaustive()
    }
}

impl VmPool {
    /// A pool that keeps up to `prepared` realms ready. It begins empty: [`VmPool::refill`] fills it.
    pub fn new(cache: Arc<BytecodeCache>, prepared: usize) -> Self {
        Self {
            cache,
            ready: VecDeque::new(),
            prepared,
        }
    }

    /// Prepares one more realm, when idle; false when there are enough.
    pub fn refill(&mut self) -> bool {
        if self.ready.len() >= self.prepared {
            return false;
        }
        let realm = realm(&self.cache);
        self.ready.push_back(realm);
        true
    }

    /// The stopper of the realm that the next frame starts in: what [`Vm::stopper`] gives after the first turn.
    pub fn next_stopper(&mut self) -> Stopper {
        if self.ready.is_empty() {
            let realm = realm(&self.cache);
            self.ready.push_back(realm);
        }
        self.ready
            .front()
            .map(|(runtime, _)| runtime.stopper())
            .unwrap_or_default()
    }

    /// Starts a frame and runs its first turn.
    pub fn start(&mut self, start: &VmStart) -> (Vm, Turn) {
        let (runtime, host) = self.ready.pop_front().unwrap_or_else(|| realm(&self.cache));
        Vm::start(runtime, host, start)
    }
}

/// A fresh realm with the prelude run in it.
fn realm(cache: &Arc<BytecodeCache>) -> Realm {
    let host = Rc::new(FrameHost::new(cache.clone()));
    let runtime = Runtime::new(host.clone())
        .expect("a realm takes 200 KB; a process that cannot have them cannot run tasks");
    if let Err(what) = boot(runtime.enter(), cache, &host) {
        // The prelude is part of this crate and takes nothing from outside, so this is a fault of the build.
        panic!("the prelude does not run: {what}");
    }
    (runtime, host)
}

fn boot(ctx: Ctx<'_>, cache: &BytecodeCache, host: &FrameHost) -> Result<(), String> {
    let booted: Result<Kernel, Thrown> = (|| {
        let prelude = if let Some(prelude) = cache.prelude() {
            prelude
        } else {
            let compile = |text: &str| ctx.compile_script(text, PRELUDE, 1);
            let prelude = Prelude {
                main: compile(&prelude::source(Op::NAMES))?.into(),
                web: compile(&prelude::web_source())?.into(),
            };
            cache.keep_prelude(prelude.clone());
            prelude
        };
        let main = ctx.run_script(&prelude.main)?;
        let functions: Result<Vec<_>, _> = (0..Op::NAMES.len())
            .map(|op| ctx.function(op as i32))
            .collect();
        let functions = ctx.array(functions?)?;
        let kernel = main.call(&[&functions])?;
        let part = |name| kernel.get(name).map(|value| ctx.keep(value));
        Ok(Kernel {
            start: part(c"start")?,
            fire: part(c"fire")?,
            error: part(c"toError")?,
        })
    })();
    if let Ok(kernel) = booted {
        host.kernel.replace(Some(Rc::new(kernel)));
        return Ok(());
    }
    let thrown = ctx.exception();
    let part = |name| thrown.get(name).ok().and_then(|text| text.as_string());
    let (message, stack) = (part(c"message"), part(c"stack"));
    Err(format!(
        "{} {}",
        message.unwrap_or_default(),
        stack.unwrap_or_default()
    ))
}
