//! One piece of work in a confined process: for hosts that run task code without an engine, such as an HTTP service around
//! [`Execution`](crate::Execution).

use std::io::{Read, Write};
use std::sync::mpsc;

use super::child::Orders;
use super::confine;

/// Bytes asked of standard input at one time.
const READ: usize = 64 << 10;

/// How the process is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// The process that started this one: with its end this one ends.
    pub parent: u32,
    /// Stack of the thread that does the work, in bytes.
    pub stack_bytes: usize,
    /// Memory of this process, in bytes.
    pub memory_bytes: u64,
}

/// Confines this process as a child of `Wall::process()` is confined, then does `work` with all that comes from standard input,
/// writes its answer to standard output, and ends the process. Returns only what stood in the way.
///
/// To be called from a plain `fn main` before any thread was started, in a process that was started with an empty environment. A
/// panic ends the process without an answer.
pub fn work_confined(
    confinement: Confinement,
    work: impl FnOnce(Vec<u8>) -> Vec<u8> + Send + 'static,
) -> String {
    match confined(confinement, work) {
        Ok(never) => match never {},
        Err(problem) => problem,
    }
}

enum Never {}

fn confined(
    confinement: Confinement,
    work: impl FnOnce(Vec<u8>) -> Vec<u8> + Send + 'static,
) -> Result<Never, String> {
    let pipe = |what| move |error: std::io::Error| format!("its {what} cannot be used: {error}");
    let mut input = confine::input().map_err(pipe("input"))?;
    let mut output = confine::output().map_err(pipe("output"))?;
    std::panic::set_hook(Box::new(|_| std::process::exit(1)));
    let pipes = confine::Pipes::new(&input, &output);
    let orders = Orders {
        parent: confinement.parent,
        stack: confinement.stack_bytes,
        memory: confinement.memory_bytes,
    };
    confine::close_in(orders, &pipes)?;

    // The thread is there before the filter that lets none begin.
    let (sealed, go) = mpsc::channel();
    let (begun, has_begun) = mpsc::channel();
    let worker = std::thread::Builder::new()
        .stack_size(confinement.stack_bytes)
        .spawn(move || {
            // A first allocation: what the allocator asks the system about threads it asks now.
            drop(begun.send(Box::new([0u8; 64])));
            if go.recv() != Ok(true) {
                return;
            }
            let done = all_of(&mut input).and_then(|asked| output.write_all(&work(asked)));
            std::process::exit(i32::from(done.is_err()));
        })
        .map_err(|error| format!("its thread could not be started: {error}"))?;
    let ended = || "its thread ended at once".to_owned();
    has_begun.recv().map_err(|_| ended())?;
    confine::seal(&pipes)?;
    sealed.send(true).map_err(|_| ended())?;
    // The worker ends the process.
    let _ = worker.join();
    Err(ended())
}

/// All that comes. `Read::read_to_end` of a file would ask for its length, which the filter does not let pass.
fn all_of(input: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut filled = 0;
    loop {
        bytes.resize(filled + READ, 0);
        match input.read(&mut bytes[filled..])? {
            0 => break,
            more => filled += more,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
