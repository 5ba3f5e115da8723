//! Task versions as the VMs run them, cached.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tasker_adaptor::{Storage, TaskName, TaskVersion};

use super::clock::EngineClock;
use super::error::EngineError;
use crate::task::{Program, TaskOptions};

/// Versions kept in memory at one time.
const VERSIONS: usize = 4_096;
/// How long the current version of a name is trusted, in milliseconds: a task published elsewhere is seen after this.
const CURRENT_MS: i64 = 1_000;

/// A task version, ready to run.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) program: Arc<Program>,
    pub(crate) options: TaskOptions,
}

/// The cache.
#[derive(Clone)]
pub(crate) struct Programs {
    storage: Arc<dyn Storage>,
    clock: EngineClock,
    cache: Arc<Mutex<Cache>>,
}

#[derive(Default)]
struct Cache {
    versions: HashMap<(TaskName, TaskVersion), Arc<Loaded>>,
    /// Current version of a name (`None`: not published), and when that was read.
    current: HashMap<TaskName, (Option<TaskVersion>, i64)>,
}

impl Programs {
    pub(crate) fn new(storage: Arc<dyn Storage>, clock: EngineClock) -> Self {
        Self {
            storage,
            clock,
            cache: Arc::default(),
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version, if it is in memory.
    pub(crate) fn cached(&self, name: &TaskName, version: &TaskVersion) -> Option<Arc<Loaded>> {
        self.cache()
            .versions
            .get(&(name.clone(), version.clone()))
            .cloned()
    }

    /// The version; `None` when storage does not have it.
    pub(crate) async fn load(
        &self,
        name: &TaskName,
        version: &TaskVersion,
    ) -> Result<Option<Arc<Loaded>>, EngineError> {
        if let Some(loaded) = self.cached(name, version) {
            return Ok(Some(loaded));
        }
        let Some(function) = self.storage.task(name, Some(version)).await? else {
            return Ok(None);
        };
        let options = function
            .options
            .to()
            .map_err(|error| EngineError::Damaged {
                what: format!("the options of task {name} version {version}"),
                problem: error.to_string(),
            })?;
        let program = Arc::new(Program::from_function(&function)?);
        let loaded = Arc::new(Loaded { program, options });
        let mut cache = self.cache();
        if cache.versions.len() >= VERSIONS {
            cache.versions.clear();
        }
        cache
            .versions
            .insert((name.clone(), version.clone()), Arc::clone(&loaded));
        Ok(Some(loaded))
    }

    /// The current version of a name, if it was read a moment ago. `Some(None)`: it was not published.
    pub(crate) fn current_cached(&self, name: &TaskName) -> Option<Option<TaskVersion>> {
        let now = self.clock.monotonic_ms();
        let cache = self.cache();
        let (version, read_at) = cache.current.get(name)?;
        (now - read_at < CURRENT_MS).then(|| version.clone())
    }

    /// The current version of a name; `None` when it is not published.
    pub(crate) async fn current(
        &self,
        name: &TaskName,
    ) -> Result<Option<TaskVersion>, EngineError> {
        if let Some(version) = self.current_cached(name) {
            return Ok(version);
        }
        let version = self
            .storage
            .task(name, None)
            .await?
            .map(|function| function.version);
        self.set_current(name, version.clone());
        Ok(version)
    }

    /// Remembers what a publish made current.
    pub(crate) fn set_current(&self, name: &TaskName, version: Option<TaskVersion>) {
        let now = self.clock.monotonic_ms();
        let mut cache = self.cache();
        if cache.current.len() >= VERSIONS {
            cache.current.clear();
        }
        cache.current.insert(name.clone(), (version, now));
    }
}
