//! A kit for tests of tasks, services and the engine itself: memory storage, a clock that tests move, stub services with a ledger.
//!
//! ```
//! use tasker_core::testing::{Stub, TestEngine};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let orders = Stub::new("orders").answer("count", |_| Ok(tasker_core::Json::from(&3).unwrap()));
//! let test = TestEngine::builder().stub(&orders).start().await;
//! test.publish("module.exports = async (input, { tools }) => { await tools.sleep(60_000); return await tools.orders.count() }", "late").await;
//! let result: u32 = test.run("late", &()).await.unwrap();
//! assert_eq!((result, orders.performed("count")), (3, 1));
//! # });
//! ```

mod clock;
mod stub;

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tasker_adaptor::{MemoryStorage, Storage, Violation};

pub use clock::TestClock;
pub use stub::{Performed, Stub};

use crate::engine::{Engine, EngineBuilder, RunError, RunHandle};
use crate::wall::Wall;

/// How every [`TestEngine`] of the process works: `park` parks every frame as soon as it waits, `process` puts the VMs into child
/// processes (feature `process-wall`; see [`test_wall`]). The second and third mode of our own suite.
pub const MODE_VARIABLE: &str = "TASKER_TEST_MODE";

/// An engine on a clock that only the test moves.
#[derive(Clone)]
pub struct TestEngine {
    engine: Engine,
    clock: TestClock,
    storage: Arc<dyn Storage>,
}

/// Settings of a [`TestEngine`].
pub struct TestEngineBuilder {
    storage: Arc<dyn Storage>,
    clock: TestClock,
    builder: EngineBuilder,
}

impl TestEngine {
    /// Begins with memory storage and a clock at 2026-01-01T00:00:00Z.
    pub fn builder() -> TestEngineBuilder {
        Self::on(Arc::new(MemoryStorage::new()), TestClock::default())
    }

    /// Begins with a storage and a clock of the test's: how a second engine is started on the same rows.
    pub fn on(storage: Arc<dyn Storage>, clock: TestClock) -> TestEngineBuilder {
        let park = is_mode("park");
        let builder = Engine::builder()
            .shared_storage(Arc::clone(&storage))
            .clock(Arc::new(clock.clone()))
            .threads(1)
            .wall(test_wall())
            .keep_rows_ms(u64::MAX)
            .park_always(park);
        TestEngineBuilder {
            storage,
            clock,
            builder,
        }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The clock.
    pub fn clock(&self) -> &TestClock {
        &self.clock
    }

    /// The storage.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Publishes a task under this name.
    ///
    /// # Panics
    /// When it cannot be published.
    pub async fn publish(&self, source: &str, name: &str) {
        let source = crate::task::TaskSource {
            name: Some(name.to_owned()),
            path: format!("{name}.js"),
            source: source.to_owned(),
            modules: Vec::new(),
        };
        if let Err(error) = self.engine.publish_source(source).await {
            panic!("{name} was not published: {error}");
        }
    }

    /// Submits.
    ///
    /// # Panics
    /// When the submit is refused.
    pub async fn submit<I: Serialize + ?Sized>(&self, task: &str, input: &I) -> RunHandle {
        match self.engine.submit(task, input).await {
            Ok(handle) => handle,
            Err(error) => panic!("{task} was not submitted: {error}"),
        }
    }

    /// Runs a task to its end, moving the clock whenever nothing else can happen.
    pub async fn run<I: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        task: &str,
        input: &I,
    ) -> Result<T, RunError> {
        let handle = self.submit(task, input).await;
        self.finish(&handle).await
    }

    /// Waits for the end of a run, moving the clock whenever nothing else can happen.
    pub async fn finish<T: DeserializeOwned>(&self, handle: &RunHandle) -> Result<T, RunError> {
        let moving = async {
            loop {
                self.engine.quiet().await;
                self.clock.advance_to_next().await;
            }
        };
        tokio::select! {
            result = handle.result() => result,
            () = moving => unreachable!("the clock is moved for ever"),
        }
    }

    /// Moves the clock by this many milliseconds, a wake-up at a time, and lets all that follows happen.
    pub async fn advance(&self, millis: i64) {
        let until = self.clock.millis() + millis;
        loop {
            self.engine.quiet().await;
            if !self.clock.advance_to_next_before(until).await {
                break;
            }
        }
        self.engine.quiet().await;
    }

    /// Rows that break an invariant of the protocol.
    ///
    /// # Panics
    /// When storage cannot be asked.
    pub async fn audit(&self) -> Vec<Violation> {
        match self.storage.audit().await {
            Ok(violations) => violations,
            Err(error) => panic!("the audit failed: {error}"),
        }
    }
}

/// The wall of this test run: in-process, or, with `TASKER_TEST_MODE=process`, child processes.
///
/// # Panics
/// In the mode `process`, without the feature `process-wall`.
pub fn test_wall() -> Wall {
    if !is_mode("process") {
        return Wall::in_process();
    }
    #[cfg(feature = "process-wall")]
    {
        Wall::process().program(sandbox_program())
    }
    #[cfg(not(feature = "process-wall"))]
    panic!("{MODE_VARIABLE}=process needs the feature process-wall of tasker-core");
}

fn is_mode(name: &str) -> bool {
    std::env::var(MODE_VARIABLE).is_ok_and(|mode| mode == name)
}

/// The program `tasker-sandbox` that was built with the tests: `TASKER_SANDBOX`, or beside the folder of the test programs.
///
/// # Panics
/// When it is not there.
#[cfg(feature = "process-wall")]
pub fn sandbox_program() -> std::path::PathBuf {
    if let Some(named) = std::env::var_os("TASKER_SANDBOX") {
        return named.into();
    }
    let name = format!("tasker-sandbox{}", std::env::consts::EXE_SUFFIX);
    let here = std::env::current_exe().unwrap_or_default();
    here.ancestors()
        .skip(1)
        .take(3)
        .map(|folder| folder.join(&name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| {
            panic!(
                "no tasker-sandbox near {}: build it with `cargo build -p tasker-core --features process-wall`, or name it in TASKER_SANDBOX",
                here.display()
            )
        })
}

impl TestEngineBuilder {
    /// Adds a stub service.
    #[must_use]
    pub fn stub(mut self, stub: &Stub) -> Self {
        self.builder = self.builder.service(stub.clone());
        self
    }

    /// Changes any other setting of the engine.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(EngineBuilder) -> EngineBuilder) -> Self {
        self.builder = change(self.builder);
        self
    }

    /// Starts.
    ///
    /// # Panics
    /// When the engine does not start.
    pub async fn start(self) -> TestEngine {
        match self.builder.start().await {
            Ok(engine) => TestEngine {
                engine,
                clock: self.clock,
                storage: self.storage,
            },
            Err(error) => panic!("the engine did not start: {error}"),
        }
    }
}
