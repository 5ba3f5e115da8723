//! The helper program of `Wall::process()`: a confined process in which an engine's VMs live.

fn main() -> std::process::ExitCode {
    tasker_core::wall::child_main();
    #[cfg(target_os = "linux")]
    tasker_core::wall::probe_main();
    eprintln!(
        "tasker-sandbox is started by an engine with .wall(Wall::process().program(\"…/tasker-sandbox\")); by hand it does nothing"
    );
    std::process::ExitCode::FAILURE
}
