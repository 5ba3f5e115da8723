//! Child processes that are killed, hang, lie, and what they cannot do. On Linux, where the wall is whole.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tasker_core::testing::Stub;
use tasker_core::{
    Engine, EngineBuilder, EngineError, Json, Limits, MemoryStorage, RunError, RunHandle, Wall,
    WallError, service_fn,
};
use tokio::sync::Semaphore;

#[path = "support/sandboxes.rs"]
mod sandboxes;

use sandboxes::{PATIENCE, alone, cpu, kill, now, sandboxes_of, stat, the_sandbox, until};

const SANDBOX: &str = env!("CARGO_BIN_EXE_tasker-sandbox");
/// Looks again and again while it waits.
async fn meanwhile<T>(waiting: impl Future<Output = T>, mut look: impl FnMut()) -> T {
    let mut waiting = std::pin::pin!(waiting);
    loop {
        match tokio::time::timeout(Duration::from_millis(2), &mut waiting).await {
            Ok(done) => return done,
            Err(_) => look(),
        }
    }
}

async fn result(handle: &RunHandle) -> Result<Value, RunError> {
    tokio::time::timeout(PATIENCE, handle.result())
        .await
        .expect("the run never ended")
}

fn wall() -> Wall {
    Wall::process().program(SANDBOX).children(1)
}

/// `gate.pass(n)` answers `n` when the test opens the gate.
fn gated(builder: EngineBuilder, gate: &Arc<Semaphore>) -> EngineBuilder {
    let gate = Arc::clone(gate);
    builder.service(service_fn("gate", move |call: tasker_core::ServiceCall| {
        let gate = Arc::clone(&gate);
        async move {
            if let Ok(permit) = gate.acquire().await {
                permit.forget();
            }
            Ok(call.args().first().cloned().unwrap_or_default())
        }
    }))
}

struct Killed {
    engine: Engine,
    gate: Arc<Semaphore>,
    stub: Stub,
}

/// An engine with one sandbox, a gate and tasks that wait at it, hang or work for long.
async fn killed(limits: Limits) -> Killed {
    let gate = Arc::new(Semaphore::new(0));
    let stub = Stub::new("svc");
    let engine = gated(Engine::builder(), &gate)
        .storage(MemoryStorage::new())
        .service(stub.clone())
        .limits(limits)
        .wall(wall())
        .start()
        .await
        .unwrap();
    for source in [
        "module.exports = async function waits(n, { tools }) {
            const first = await tools.svc.echo(n);
            return [first, await tools.gate.pass(n + 1)];
        }",
        "module.exports = async function works(n, { tools }) {
            const first = await tools.svc.echo('works');
            let sum = 0;
            for (let i = 0; i < 40_000_000; i++) sum = (sum + i) % 1000;
            return [first, sum];
        }",
        "module.exports = async function hangs(source, { tools }) {
            await tools.svc.echo('hangs');
            return new Function(source)();
        }",
        "module.exports = async function nothing() { return 'fine' }",
    ] {
        engine.publish(source).await.unwrap();
    }
    Killed { engine, gate, stub }
}

impl Killed {
    /// Runs that wait at the gate, each with its turn committed.
    async fn waiting(&self, count: u32) -> Vec<RunHandle> {
        let mut handles = Vec::new();
        for n in 0..count {
            handles.push(self.engine.submit("waits", &n).await.unwrap());
        }
        until("all wait at the gate", || {
            self.stub.performed("echo") >= count as usize
        })
        .await;
        handles
    }

    async fn all_pass(&self, waiting: Vec<RunHandle>) {
        self.gate.add_permits(1_000);
        for (n, handle) in waiting.iter().enumerate() {
            assert_eq!(result(handle).await.unwrap(), json!([n, n + 1]));
        }
        let fine = self.engine.submit("nothing", &()).await.unwrap();
        assert_eq!(result(&fine).await.unwrap(), json!("fine"));
        let found: Vec<String> = self
            .engine
            .audit()
            .await
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(found.is_empty(), "{found:?}");
    }

    /// Waits until the sandbox has worked for a while since it answered the last call, and kills it.
    async fn kill_at_work(&self, calls: usize) {
        until("the call was asked", || {
            self.stub.performed("echo") >= calls
        })
        .await;
        let sandbox = the_sandbox().await;
        let before = cpu(sandbox);
        until("the turn is under way", || cpu(sandbox) > before + 5).await;
        kill(sandbox);
        until("the sandbox is gone", || stat(sandbox).is_none()).await;
    }
}

#[tokio::test]
async fn a_sandbox_killed_between_turns_costs_nothing() {
    let _alone = alone().await;
    let test = killed(Limits::default()).await;
    let waiting = test.waiting(5).await;
    let sandbox = the_sandbox().await;
    kill(sandbox);
    until(
        "another takes its place",
        || matches!(*sandboxes_of(std::process::id()), [other] if other != sandbox),
    )
    .await;
    test.all_pass(waiting).await;
    assert_eq!(test.stub.performed("echo"), 5, "a call was made twice");
}

#[tokio::test]
async fn a_sandbox_killed_in_a_turn_costs_a_replay() {
    let _alone = alone().await;
    let test = killed(Limits::default()).await;
    let waiting = test.waiting(3).await;
    let works = test.engine.submit("works", &()).await.unwrap();
    test.kill_at_work(4).await;
    assert_eq!(
        result(&works).await.unwrap()[0],
        json!("works"),
        "who killed it is not known, so nobody is guilty yet"
    );
    test.all_pass(waiting).await;
    assert_eq!(test.stub.performed("echo"), 4, "a call was made twice");
}

#[tokio::test]
async fn a_frame_under_which_sandboxes_die_again_and_again_fails_alone() {
    let _alone = alone().await;
    let test = killed(Limits::default()).await;
    let waiting = test.waiting(3).await;
    let works = test.engine.submit("works", &()).await.unwrap();
    for _ in 0..3 {
        test.kill_at_work(4).await;
    }
    let Err(RunError::Failed(failure)) = result(&works).await else {
        panic!("the run outlived three sandboxes");
    };
    assert_eq!(failure.name, "SandboxError");
    assert_eq!(failure.code.as_deref(), Some("sandbox_died"));
    assert!(failure.message.contains("SIGKILL"), "{failure}");
    test.all_pass(waiting).await;
}

/// How long it takes until a turn that hangs has failed. On a machine that has other work too the sandbox's own time counts.
async fn stuck(test: &Killed, source: &str) -> Duration {
    let sandbox = the_sandbox().await;
    let (since, before) = (now(), cpu(sandbox));
    let run = test.engine.submit("hangs", source).await.unwrap();
    let mut had = before;
    let Err(RunError::Failed(failure)) = meanwhile(result(&run), || {
        had = had.max(cpu(sandbox));
    })
    .await
    else {
        panic!("{source} came to an end");
    };
    assert_eq!(failure.name, "LimitExceeded", "{source}: {failure}");
    (now() - since).min(Duration::from_millis(10 * (had - before + 1)))
}

#[tokio::test]
async fn turns_stuck_in_native_code_end_in_time_and_alone() {
    let _alone = alone().await;
    let test = killed(Limits {
        turn_wall_ms: 200,
        ..Limits::default()
    })
    .await;
    let waiting = test.waiting(3).await;
    let bound = Duration::from_millis(2 * 200 + 500);
    for source in [
        "for (;;) 'x\\u0301'.repeat(1 << 20).normalize('NFD')",
        "const s = 'x'.repeat(1 << 22); for (;;) s.localeCompare(s + 'y')",
        "Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1)",
        "return /(x+x+)+y/.test('x'.repeat(64))",
        "for (;;) new Promise(() => { for (;;) {} })",
    ] {
        // Who looks after the sandbox may be kept from it by what else this machine does, now and then.
        let mut passed = stuck(&test, source).await;
        for _ in 0..4 {
            if passed >= bound {
                passed = stuck(&test, source).await;
            }
        }
        assert!(passed < bound, "{source} took {passed:?}");
    }
    test.all_pass(waiting).await;
}

#[tokio::test]
async fn a_sandbox_without_memory_is_replaced_and_blames_no_small_frame() {
    let _alone = alone().await;
    let limits = Limits {
        memory_bytes: 1 << 30,
        ..Limits::default()
    };
    let engine = Engine::builder()
        .storage(MemoryStorage::new())
        .limits(limits)
        .wall(wall().memory_bytes(256 << 20))
        .start()
        .await
        .unwrap();
    engine
        .publish("module.exports = async function grows() { const all = []; for (;;) all.push('x'.repeat(1 << 20) + all.length) }")
        .await
        .unwrap();
    engine
        .publish("module.exports = async function nothing() { return 'fine' }")
        .await
        .unwrap();
    let grows = engine.submit("grows", &()).await.unwrap();
    let Err(RunError::Failed(failure)) = result(&grows).await else {
        panic!("it grew beyond its sandbox");
    };
    assert!(failure.message.contains("no more memory"), "{failure}");
    let fine = engine.submit("nothing", &()).await.unwrap();
    assert_eq!(result(&fine).await.unwrap(), json!("fine"));
}

/// A shell script. Another process writes it: a file that is open for writing in this one, or in a child that another thread has just
/// forked off, cannot be executed.
fn write_program(path: &Path, script: &str) {
    let text = path.with_extension("text");
    std::fs::write(&text, format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")).unwrap();
    let copied = Command::new("cp")
        .args(["--remove-destination".as_ref(), text.as_os_str()])
        .arg(path)
        .status();
    assert!(copied.unwrap().success());
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// An engine whose sandbox is a shell script that has said what a ready child says and then does this.
async fn lying(folder: &Path, script: &str) -> Result<Engine, EngineError> {
    let version = env!("CARGO_PKG_VERSION");
    let (length, text) = (version.len() + 4, version.len());
    let program = folder.join("liar");
    let ready =
        format!("printf '\\{length:03o}\\0\\0\\0\\0\\0\\0\\0\\001\\003\\{text:03o}{version}\\000'");
    write_program(&program, &format!("{ready}\n{script}"));
    Engine::builder()
        .storage(MemoryStorage::new())
        .limits(Limits {
            turn_wall_ms: 200,
            ..Limits::default()
        })
        .wall(Wall::process().program(program).children(1))
        .start()
        .await
}

async fn fails_with(engine: &Engine) -> tasker_core::Failure {
    let run = engine.submit("nothing", &()).await.unwrap();
    match result(&run).await {
        Err(RunError::Failed(failure)) => failure,
        other => panic!("a liar was believed: {other:?}"),
    }
}

#[tokio::test]
async fn a_sandbox_that_lies_is_not_believed() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let reads = "head -c 1 >/dev/null; printf";
    for (script, said) in [
        // No message is so long.
        (
            format!("{reads} '\\377\\377\\377\\377\\377\\377\\377\\177'; sleep 100"),
            "longer than an answer can be",
        ),
        // An answer of no kind.
        (
            format!("{reads} '\\001\\0\\0\\0\\0\\0\\0\\0\\377'; sleep 100"),
            "an answer of no kind",
        ),
        // The replay of VM 7, for which nobody asked.
        (
            format!("{reads} '\\003\\0\\0\\0\\0\\0\\0\\0\\003\\007\\0'; sleep 100"),
            "answers what was not asked",
        ),
        // The replay of VM 1, which was to be started.
        (
            format!("{reads} '\\003\\0\\0\\0\\0\\0\\0\\0\\003\\001\\0'; sleep 100"),
            "answers otherwise than it was asked",
        ),
        // VM 1: takes nothing, no calls, none given up, no lines, waits.
        (
            format!("{reads} '\\007\\0\\0\\0\\0\\0\\0\\0\\002\\001\\0\\0\\0\\0\\0'; sleep 100"),
            "waits for nothing",
        ),
        // VM 1: completed with `{`.
        (
            format!(
                "{reads} '\\011\\0\\0\\0\\0\\0\\0\\0\\002\\001\\0\\0\\0\\0\\002\\001{{'; sleep 100"
            ),
            "a payload is not JSON",
        ),
        ("head -c 1 >/dev/null; exit 3".to_owned(), "exit status: 3"),
        ("head -c 1 >/dev/null; kill -SEGV $$".to_owned(), "SIGSEGV"),
    ] {
        let engine = lying(folder.path(), &script).await.unwrap();
        engine
            .publish("module.exports = async function nothing() {}")
            .await
            .unwrap();
        let failure = fails_with(&engine).await;
        assert_eq!(failure.code.as_deref(), Some("sandbox_died"), "{said}");
        assert!(failure.message.contains(said), "{said}: {failure}");
        engine.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_sandbox_that_says_nothing_is_killed() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let engine = lying(folder.path(), "exec sleep 100").await.unwrap();
    engine
        .publish("module.exports = async function nothing() {}")
        .await
        .unwrap();
    assert_eq!(
        fails_with(&engine).await.code.as_deref(),
        Some("wall_clock")
    );
}

#[tokio::test]
async fn a_wall_that_cannot_be_put_up_says_what_to_do() {
    let _alone = alone().await;
    let start = |wall| {
        Engine::builder()
            .storage(MemoryStorage::new())
            .wall(wall)
            .start()
    };
    let problem = |started: Result<Engine, EngineError>| match started {
        Err(EngineError::Wall(error)) => error,
        other => panic!("it started: {:?}", other.map(drop)),
    };
    let error = problem(start(Wall::process()).await);
    assert!(matches!(error, WallError::NoProgram), "{error}");
    assert!(error.to_string().contains("child_main()"), "{error}");

    let error = problem(start(Wall::process().program("/nowhere/tasker-sandbox")).await);
    assert!(matches!(error, WallError::Spawn { .. }), "{error}");
    assert!(error.to_string().contains("/nowhere/"), "{error}");

    let error = problem(start(Wall::process().program("/bin/true")).await);
    assert!(matches!(error, WallError::NotReady { .. }), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let program: PathBuf = folder.path().join("old");
    let said = "printf '\\010\\0\\0\\0\\0\\0\\0\\0\\001\\001\\0040.0.\\000'; exec sleep 100";
    write_program(&program, said);
    let error = problem(start(Wall::process().program(program)).await);
    assert!(error.to_string().contains("of version 0.0."), "{error}");
}

// -------------------------------------------------------------------------------------------- confinement

fn probe(arguments: &str) -> Output {
    Command::new(SANDBOX)
        .arg("--probe")
        .args(arguments.split(' '))
        .env_clear()
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_is_not_allowed_ends_the_process() {
    const SIGSYS: i32 = 31;
    assert!(
        said(&probe("none")).starts_with("done"),
        "the filter is too tight"
    );
    for what in ["exec", "fork", "kill", "mkdir", "prctl", "socket", "thread"] {
        let output = probe(what);
        assert_eq!(output.status.signal(), Some(SIGSYS), "{what}: {output:?}");
        assert_eq!(said(&output), "", "{what}");
    }
    for what in ["open", "read"] {
        let said = said(&probe(what));
        assert!(said.contains("Permission denied"), "{what}: {said}");
    }
}

#[test]
fn behind_the_filter_is_a_second_line() {
    // Landlock: no file is made, no process outside is signalled. Limits: no descriptor is left to open one.
    for (what, why) in [
        ("mkdir", "Permission denied"),
        ("kill", "not permitted"),
        ("exec", "Permission denied"),
        ("open", "Too many open files"),
        ("socket", "Too many open files"),
        ("fork", "refused"),
    ] {
        let said = said(&probe(&format!("{what} --unsealed")));
        assert!(
            said.starts_with("refused") && said.contains(why),
            "{what}: {said}"
        );
    }
}

#[test]
fn nothing_is_inherited() {
    // Descriptor 9 is open when the sandbox begins.
    let script = format!("exec 9</etc/passwd; exec env -i {SANDBOX} --probe descriptors");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = said(&output);
    let open: Vec<u32> = said
        .trim_start_matches("done [")
        .trim_end_matches("]\n")
        .split(", ")
        .map(|number| number.parse().unwrap())
        .collect();
    assert_eq!(open.len(), 2, "its two pipes and nothing else: {said}");
    assert!(!open.contains(&9), "{said}");

    // A sandbox with an environment does not begin; engines start them without one (every test here shows it).
    let output = Command::new(SANDBOX)
        .args(["--probe", "none"])
        .env("SECRET", "x")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(problem.contains("given an environment"), "{problem}");
}

#[test]
fn by_hand_the_program_says_what_it_is_for() {
    let output = Command::new(SANDBOX).output().unwrap();
    assert!(!output.status.success());
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(problem.contains("Wall::process()"), "{problem}");
}

// ------------------------------------------------------------------------------------------- death of the host

/// Not a test: the host that the next test kills. It has a sandbox that is busy in native code and one that is idle.
#[tokio::test]
#[ignore = "it is run by sandboxes_die_with_their_host and waits to be killed"]
async fn a_host_that_is_killed() {
    let engine = Engine::builder()
        .storage(MemoryStorage::new())
        .limits(Limits {
            turn_wall_ms: 1_000_000,
            ..Limits::default()
        })
        .wall(Wall::process().program(SANDBOX).children(2))
        .start()
        .await
        .unwrap();
    engine
        .publish("module.exports = async function stuck() { Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1) }")
        .await
        .unwrap();
    let stuck = engine.submit("stuck", &()).await.unwrap();
    println!("\nthe sandboxes are there");
    let _: Result<Json, _> = stuck.result().await;
}

#[tokio::test]
async fn sandboxes_die_with_their_host() {
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_host_that_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(host.stdout.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap() == "the sandboxes are there"),
        "the host did not start"
    );
    let sandboxes = sandboxes_of(host.id());
    assert_eq!(sandboxes.len(), 2);
    until("one is busy", || sandboxes.iter().any(|id| cpu(*id) > 20)).await;
    host.kill().unwrap();
    host.wait().unwrap();
    until("none is left", || {
        sandboxes
            .iter()
            .all(|id| stat(*id).is_none_or(|stat| stat[0] == "Z"))
    })
    .await;
}
