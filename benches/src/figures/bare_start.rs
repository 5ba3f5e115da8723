//! The floor of `cold_start`: a bare runtime and context, and a small module from its bytecode.
#![expect(
    unsafe_code,
    reason = "QuickJS takes bytecode on trust, with the argument at the block"
)]

use rquickjs::{Context, Module, Runtime, WriteOptions};

use super::Problem;
use crate::clock::Stopwatch;

/// The task of the figure as a module of bare QuickJS.
const BARE: &str = "export default async function asks(input, { tools }) { return await tools.bench.step(input); }";

/// Microseconds for one of so many.
pub(super) fn bare_start(runs: u32) -> Result<f64, Problem> {
    let code = Context::full(&Runtime::new()?)?.with(|ctx| {
        Module::declare(ctx, "asks", BARE)?.write(WriteOptions {
            strip_source: true,
            ..WriteOptions::default()
        })
    })?;
    let watch = Stopwatch::start();
    for _ in 0..runs {
        let runtime = Runtime::new()?;
        Context::full(&runtime)?.with(|ctx| {
            // SAFETY: the bytes are those that this QuickJS has written above, and they outlive what is made of them.
            let module = unsafe { Module::load(ctx, &code) }?;
            module.eval().map(drop)
        })?;
    }
    Ok(watch.seconds() * 1e6 / f64::from(runs))
}
