//! Shows what a child cannot do: confines this process as a child, tries one thing, and says what came of it.
//!
//! For tests, and for those who want to see it on their own system: `env -i tasker-sandbox --probe open`. A system call that the filter does
//! not let pass ends the process with SIGSYS. With `--unsealed` all of the confinement is there but that filter.

use std::io::Write;

use super::child::Orders;
use super::confine::{self, Pipes};

/// What `--probe` takes.
const PROBES: &str =
    "descriptors, exec, fork, kill, mkdir, none, open, prctl, read, socket, thread";

/// Carries out `--probe NAME [--unsealed]`, if that is what this program was started with, and ends.
#[doc(hidden)]
pub fn probe_main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().is_none_or(|first| first != "--probe") {
        return;
    }
    let name = arguments.next().unwrap_or_default();
    let seal = arguments.next().is_none_or(|next| next != "--unsealed");
    let code = match probe(&name, seal) {
        Ok(never) => match never {},
        Err(problem) => {
            eprintln!("tasker-sandbox: {problem}");
            1
        }
    };
    std::process::exit(code)
}

enum Never {}

fn probe(name: &str, seal: bool) -> Result<Never, String> {
    let text = |error: std::io::Error| error.to_string();
    let parent = rustix::process::getppid().ok_or("it has no parent")?;
    let input = confine::input().map_err(text)?;
    let mut output = confine::output().map_err(text)?;
    let pipes = Pipes::new(&input, &output);
    let orders = Orders {
        parent: parent.as_raw_nonzero().get().unsigned_abs(),
        stack: 1 << 20,
        memory: 1 << 30,
    };
    let mut said = confine::close_in(orders, &pipes)?.join("; ");
    if name == "descriptors" {
        said = format!("{:?}", confine::descriptors(4_096));
    }
    if seal {
        confine::seal(&pipes)?;
    }
    let tried = match name {
        "none" | "descriptors" => Ok(()),
        "exec" => {
            use std::os::unix::process::CommandExt;
            Err(std::process::Command::new("/bin/true").exec())
        }
        "fork" => std::process::Command::new("/bin/true").status().map(drop),
        "kill" => rustix::process::test_kill_process(parent).map_err(Into::into),
        "mkdir" => std::fs::create_dir("/tmp/tasker-sandbox-probe"),
        "open" => std::fs::File::open("/etc/passwd").map(drop),
        "prctl" => {
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)
                .map_err(Into::into)
        }
        "read" => std::fs::read_dir("/proc/self/fd").map(drop),
        "socket" => std::net::UdpSocket::bind("127.0.0.1:0").map(drop),
        "thread" => std::thread::Builder::new().spawn(|| ()).map(drop),
        _ => return Err(format!("no probe of that name; there are: {PROBES}")),
    };
    let line = match tried {
        Ok(()) => format!("done {said}\n"),
        Err(error) => format!("refused: {error}\n"),
    };
    output.write_all(line.as_bytes()).map_err(text)?;
    std::process::exit(0)
}
