//! Source to bytecode, in a runtime of its own that is thrown away.
//!
//! Apart, because QuickJS loads the imports of a module while it compiles it: in the frame's own runtime a first run would then
//! hold modules that a run from the cache does not, and the two could differ. Here every import is an empty module.

use std::rc::Rc;

use tasker_adaptor::Failure;

use super::capture::pending_failure;
use super::raw::{
    Args, Ctx, Host, ModuleError, ModuleSource, Runtime, Stopper, Thrown, Trip, Value,
};
use crate::limits::{Limit, Limits};
use crate::task::{Module, ModuleFormat, Program};

/// Why there is no bytecode.
#[derive(Debug)]
pub(super) enum CompileError {
    /// A syntax error, with file, line and column in its stack.
    Syntax(Box<Failure>),
    /// Compiling passed a limit.
    Limit(Limit),
}

/// The limit that ended a runtime.
pub(super) const fn limit_of(trip: Trip) -> Limit {
    match trip {
        Trip::Memory => Limit::Memory,
        Trip::Ticks => Limit::Cpu,
        Trip::Interrupted => Limit::WallClock,
        Trip::Host(limit) => limit,
    }
}

struct Compiling;

impl Host for Compiling {
    fn call<'r>(&self, ctx: Ctx<'r>, _op: i32, _args: &Args<'r>) -> Result<Value<'r>, Thrown> {
        Ok(ctx.undefined())
    }

    fn resolve(&self, _base: &str, name: &str) -> Result<String, String> {
        Ok(format!("import:{name}"))
    }

    fn module<'r>(&self, ctx: Ctx<'r>, _name: &str) -> Result<ModuleSource<'r>, ModuleError> {
        Ok(ModuleSource::Exports(ctx.undefined()))
    }

    fn rejection<'r>(&self, _: Ctx<'r>, _: &Value<'r>, _: &Value<'r>, _: bool) {}
}

/// Compiles one file of a program.
pub(super) fn compile(
    program: &Program,
    module: &Module,
    limits: &Limits,
    stopper: Stopper,
) -> Result<Vec<u8>, CompileError> {
    let Some(runtime) = Runtime::with_stopper(Rc::new(Compiling), stopper) else {
        return Err(CompileError::Limit(Limit::Memory));
    };
    runtime.arm(limits.memory_bytes, limits.stack_bytes);
    runtime.set_tick_limit(limits.turn_ticks);
    let ctx = runtime.enter();
    let compiled = match module.format {
        ModuleFormat::EsModule => ctx.compile_module(&module.source, &module.path),
        ModuleFormat::CommonJs => {
            let bare = program
                .bare_function
                .as_deref()
                .filter(|_| module.path == program.entry.path);
            // The function's head stands on line 0; line −1 is empty, for QuickJS takes a first line of 0 for "not given".
            ctx.compile_script(&common(module, bare), &module.path, -1)
        }
    };
    let compiled = compiled.map_err(|Thrown| Box::new(pending_failure(ctx)));
    if let Some(trip) = runtime.tripped() {
        return Err(CompileError::Limit(limit_of(trip)));
    }
    compiled.map_err(CompileError::Syntax)
}

/// A CommonJS file as a function; what it returns is the bare function, if there is one.
fn common(module: &Module, bare: Option<&str>) -> String {
    let tail = bare.map_or_else(String::new, |name| {
        format!("return typeof {name} === 'function' ? {name} : undefined;")
    });
    let source = module.source.trim_start_matches('\u{feff}');
    let comment = if source.starts_with("#!") { "//" } else { "" };
    format!(
        "\n(function (exports, require, module, __filename, __dirname) {{\n{comment}{source}\n{tail}}})"
    )
}

/// Compiles every file of a program without running it: what is checked when a task is published. Synchronous, and as slow as the
/// text wants it to be: the engine does it on a thread of its own.
///
/// # Errors
/// The first syntax error, with file, line and column in its stack; or the limit that compiling passed.
#[allow(
    clippy::result_large_err,
    reason = "a failure is what the caller stores; publishing is no hot path"
)]
pub fn check_program(program: &Program, limits: &Limits) -> Result<(), Failure> {
    check_program_until(program, limits, &Stopper::default())
}

/// [`check_program`], ended by another thread. Needs a stack of 1 MiB more than [`Limits::stack_bytes`].
#[allow(clippy::result_large_err, reason = "as above")]
pub(crate) fn check_program_until(
    program: &Program,
    limits: &Limits,
    stopper: &Stopper,
) -> Result<(), Failure> {
    for module in std::iter::once(&program.entry).chain(&program.modules) {
        if super::modules::is_json(&module.path) {
            continue;
        }
        compile(program, module, limits, stopper.clone()).map_err(|error| match error {
            CompileError::Syntax(failure) => *failure,
            CompileError::Limit(limit) => limit.failure(limits),
        })?;
    }
    Ok(())
}
