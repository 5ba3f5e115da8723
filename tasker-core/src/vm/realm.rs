//! Pristine realms: a runtime in which the prelude has run and no task code. The first of a process is built from source; the others
//! are copies of its memory.

use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use super::bridge::Op;
use super::cache::BytecodeCache;
use super::capture::PRELUDE;
use super::host::{FrameHost, Kernel};
use super::prelude::{self, Script};
use super::raw::{Ctx, Runtime, Template, Thrown};
use crate::task::Program;

/// A pristine realm, and what stands behind its bridge.
pub(super) type Realm = (Runtime, Rc<FrameHost>);

/// What realms are made of, once a process: bytecode of the prelude's first script, and images of the first realm of each kind.
struct Mould {
    main: Arc<[u8]>,
    images: [OnceLock<Option<Image>>; 3],
}

/// The memory of a realm, and where its functions are.
type Image = (Arc<Template>, Kernel);

/// Which globals a realm has from the start, of those that are otherwise made when they are first touched: each kind has those of the
/// kind before it. Making `Date` takes some ten times as long as copying a realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum With {
    Nothing,
    /// `console`, timers and `crypto`.
    Usual,
    Date,
}

impl With {
    /// What a program is likely to touch, as far as its text says.
    pub(super) fn of(program: &Program) -> Self {
        let names = |name: &&str| {
            let mut modules = std::iter::once(&program.entry).chain(&program.modules);
            modules.any(|module| module.source.contains(*name))
        };
        if names(&"Date") {
            Self::Date
        } else if USUAL.iter().any(names) {
            Self::Usual
        } else {
            Self::Nothing
        }
    }

    /// A script that touches them.
    const fn touch(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Usual => Some("console, setTimeout, crypto"),
            Self::Date => Some("console, setTimeout, crypto, Date"),
        }
    }
}

const USUAL: [&str; 5] = [
    "console",
    "setTimeout",
    "setInterval",
    "setImmediate",
    "crypto",
];

static MOULD: OnceLock<Mould> = OnceLock::new();

fn mould() -> &'static Mould {
    MOULD.get_or_init(|| {
        let main = compiled(&new(scratch()), &prelude::source(Op::NAMES));
        let images = [const { OnceLock::new() }; 3];
        Mould { main, images }
    })
}

impl Mould {
    /// `None` where a realm cannot be copied: each is built.
    fn image(&self, with: With) -> Option<&Image> {
        let image = &self.images[with as usize];
        image.get_or_init(|| self.make_image(with)).as_ref()
    }

    fn make_image(&self, with: With) -> Option<Image> {
        let (runtime, kernel) = self.original(with, 0)?;
        Some((Arc::new(Template::of(&runtime)?), kernel))
    }

    /// A realm of which an image can be taken; so many bytes from the start of its memory.
    fn original(&self, with: With, skip: usize) -> Option<(Runtime, Kernel)> {
        let host = || host(&Arc::default());
        let rehearsal = new(Runtime::to_rehearse(host()));
        self.furnish(&rehearsal, with);
        let runtime = new(Runtime::to_copy(host(), rehearsal.plan()?, skip));
        let kernel = self.furnish(&runtime, with);
        Some((runtime, kernel))
    }

    fn furnish(&self, runtime: &Runtime, with: With) -> Kernel {
        let touch = with.touch().map(|script| compiled(&new(scratch()), script));
        run(runtime.enter(), |ctx| {
            let kernel = boot(ctx, &self.main)?;
            if let Some(touch) = &touch {
                ctx.run_script(touch)?;
            }
            Ok(kernel)
        })
    }
}

/// Bytecode of a script, compiled when it is first asked for in a process; `None` when the machine has no memory for that.
pub(super) fn bytecode(script: Script) -> Option<Arc<[u8]>> {
    static CODE: [OnceLock<Arc<[u8]>>; Script::ALL.len()] =
        [const { OnceLock::new() }; Script::ALL.len()];
    let code = &CODE[script as usize];
    if code.get().is_none() {
        // Two threads may both do it: the first one's is taken.
        let _ = code.set(compiled(&scratch()?, &script.source()));
    }
    code.get().cloned()
}

/// A runtime to compile in.
fn scratch() -> Option<Runtime> {
    Runtime::new(host(&Arc::default()))
}

fn compiled(scratch: &Runtime, source: &str) -> Arc<[u8]> {
    run(scratch.enter(), |ctx| {
        ctx.compile_script(source, PRELUDE, 1)
    })
    .into()
}

fn host(cache: &Arc<BytecodeCache>) -> Rc<FrameHost> {
    Rc::new(FrameHost::new(cache.clone()))
}

fn new(runtime: Option<Runtime>) -> Runtime {
    runtime.expect("a realm takes 200 KB; a process that cannot have them cannot run tasks")
}

/// A fresh realm with the prelude run in it.
pub(super) fn realm(cache: &Arc<BytecodeCache>, with: With) -> Realm {
    let (host, mould) = (host(cache), mould());
    let (runtime, kernel) = if let Some((image, kernel)) = mould.image(with) {
        (new(image.copy(host.clone())), kernel.in_copy())
    } else {
        let runtime = new(Runtime::new(host.clone()));
        let kernel = mould.furnish(&runtime, with);
        (runtime, kernel)
    };
    host.kernel.replace(Some(Rc::new(kernel)));
    (runtime, host)
}

/// Runs the prelude.
fn boot(ctx: Ctx<'_>, main: &Arc<[u8]>) -> Result<Kernel, Thrown> {
    let main = ctx.run_script(main)?;
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
        rejection: part(c"toRejection")?,
    })
}

/// Work on the prelude, which is part of this crate and takes nothing from outside: that it fails is a fault of the build.
fn run<T>(ctx: Ctx<'_>, work: impl FnOnce(Ctx<'_>) -> Result<T, Thrown>) -> T {
    work(ctx).unwrap_or_else(|Thrown| {
        let thrown = ctx.exception();
        let part = |name| thrown.get(name).ok().and_then(|text| text.as_string());
        let (message, stack) = (part(c"message"), part(c"stack"));
        panic!(
            "the prelude does not run: {} {}",
            message.unwrap_or_default(),
            stack.unwrap_or_default()
        )
    })
}

/// See [`Mould::original`].
#[cfg(test)]
pub(super) fn built(skip: usize, with: With) -> Runtime {
    let original = mould().original(with, skip);
    original.expect("a rehearsal has a plan").0
}
