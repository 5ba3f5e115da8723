//! The child processes of an engine: what runs in them, and the watch over all of them. One child is in [`super::home`].
//!
//! Nothing here waits for a child without a watch, and no child is ever waited for by the engine.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::child::{MARK, Orders, was_called};
use super::home::Home;
use super::verdict::Suspects;
use super::worker::{VmCommand, VmReport, thread_stack};
use super::{Processes, WallError};

/// How often busy children are looked at, in milliseconds.
const LOOK_MS: u64 = 20;

/// Takes reports; false when nobody wants them any more.
pub(crate) type Reports = Arc<dyn Fn(VmReport) -> bool + Send + Sync>;

/// The children of an engine. When they are dropped they are killed; nobody waits for them.
pub(crate) struct ProcessHomes {
    homes: Vec<Arc<Home>>,
    threads: Vec<JoinHandle<()>>,
    bell: Arc<Bell>,
}

impl ProcessHomes {
    /// Starts the children, and waits until all are ready.
    pub(crate) async fn start(
        settings: &Processes,
        threads: usize,
        js_stack: usize,
        reports: Reports,
    ) -> Result<Self, WallError> {
        let plan = Arc::new(Plan::new(settings, js_stack)?);
        let suspects = Arc::new(Suspects::default());
        let (bell, rung) = mpsc::channel();
        let bell = Arc::new(Bell {
            rope: Mutex::new(bell),
            awake: AtomicBool::new(false),
        });
        let mut all = Self {
            homes: Vec::new(),
            threads: Vec::new(),
            bell: Arc::clone(&bell),
        };
        let mut ready = Vec::new();
        for n in 0..settings.count.unwrap_or(threads).max(1) {
            let home = Arc::new(Home::new(
                Arc::clone(&plan),
                Arc::clone(&reports),
                Arc::clone(&suspects),
                Arc::clone(&bell),
            ));
            let (first, is_ready) = oneshot::channel();
            ready.push(is_ready);
            all.homes.push(Arc::clone(&home));
            all.threads.push(
                std::thread::Builder::new()
                    .name(format!("tasker-wall-{n}"))
                    .spawn(move || home.live(first))
                    .map_err(WallError::Threads)?,
            );
        }
        let watched = all.homes.clone();
        all.threads.push(
            std::thread::Builder::new()
                .name("tasker-watch".to_owned())
                .spawn(move || watch(&watched, &bell.awake, &rung))
                .map_err(WallError::Threads)?,
        );
        for is_ready in ready {
            is_ready
                .await
                .map_err(|_| plan.not_ready("its thread ended"))??;
        }
        Ok(all)
    }

    pub(crate) fn count(&self) -> usize {
        self.homes.len()
    }

    pub(crate) fn send(&self, home: usize, command: VmCommand) {
        self.homes[home].send(command);
    }

    /// Kills the children and waits for the threads.
    pub(crate) fn join(mut self) {
        self.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    fn stop(&self) {
        for home in &self.homes {
            home.stop();
        }
        self.bell.ring();
    }
}

impl Drop for ProcessHomes {
    fn drop(&mut self) {
        // Threads must not end while they are being detached (see `VmThread`).
        self.threads.clear();
        self.stop();
    }
}

/// What to run in the children.
#[derive(Debug)]
pub(super) struct Plan {
    program: PathBuf,
    stack: usize,
    memory: u64,
}

impl Plan {
    fn new(settings: &Processes, js_stack: usize) -> Result<Self, WallError> {
        let program = match &settings.program {
            Some(program) => std::path::absolute(program).map_err(|source| WallError::Spawn {
                program: program.clone(),
                source,
            })?,
            None if !was_called() => return Err(WallError::NoProgram),
            // The same file, also when another was put in its place since.
            None if cfg!(target_os = "linux") => PathBuf::from("/proc/self/exe"),
            None => std::env::current_exe().map_err(|source| WallError::Spawn {
                program: PathBuf::from("this executable"),
                source,
            })?,
        };
        Ok(Self {
            program,
            stack: thread_stack(js_stack),
            memory: settings.memory_bytes,
        })
    }

    pub(super) fn spawn(&self) -> Result<Child, WallError> {
        let orders = Orders {
            parent: std::process::id(),
            stack: self.stack,
            memory: self.memory,
        };
        let mut command = Command::new(&self.program);
        command
            .arg(MARK)
            .arg(orders.text())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt;
            command.arg0("tasker-sandbox").current_dir("/");
        }
        #[cfg(windows)]
        if let Some(root) = std::env::var_os("SystemRoot") {
            // Without it programs do not start there.
            command.env("SystemRoot", root);
        }
        command.spawn().map_err(|source| WallError::Spawn {
            program: self.program.clone(),
            source,
        })
    }

    pub(super) fn not_ready(&self, problem: impl Into<String>) -> WallError {
        WallError::NotReady {
            program: self.program.clone(),
            problem: problem.into(),
        }
    }
}

/// Wakes the watch.
pub(super) struct Bell {
    rope: Mutex<mpsc::Sender<()>>,
    awake: AtomicBool,
}

impl Bell {
    pub(super) fn ring(&self) {
        if !self.awake.swap(true, Ordering::AcqRel) {
            let rope = self.rope.lock().unwrap_or_else(PoisonError::into_inner);
            // Without a watch the engine is ending.
            let _ = rope.send(());
        }
    }
}

/// Looks at busy children until the engine is gone. It counts its own pauses and the children's processor time: a host that was stopped
/// for a while, or is busy, blames nobody for it.
fn watch(homes: &[Arc<Home>], awake: &AtomicBool, rung: &mpsc::Receiver<()>) {
    while rung.recv().is_ok() {
        loop {
            match rung.recv_timeout(Duration::from_millis(LOOK_MS)) {
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Ok(()) | Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            if homes.iter().any(|home| home.is_stopping()) {
                return;
            }
            let look = || {
                homes
                    .iter()
                    .fold(false, |busy, home| home.look(LOOK_MS) | busy)
            };
            if !look() {
                awake.store(false, Ordering::Release);
                // What was sent between the look and this did not ring.
                if !homes.iter().any(|home| home.is_busy()) {
                    break;
                }
                awake.store(true, Ordering::Release);
            }
        }
    }
}
