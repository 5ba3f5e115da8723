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

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Current {
    /// This is its current version.
    Version(TaskVersion),
    /// No task has it.
    Unpublished,
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
    /// What was read of a name, and when.
    current: HashMap<TaskName, (Current, i64)>,
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

    /// What was read of a name a moment ago; `None` when it must be read again.
    pub(crate) fn current_cached(&self, name: &TaskName) -> Option<Current> {
        let now = self.clock.monotonic_ms();
        let cache = self.cache();
        let (current, read_at) = cache.current.get(name)?;
        (now - read_at < CURRENT_MS).then(|| current.clone())
    }

    /// The current version of a name.
    pub(crate) async fn current(&self, name: &TaskName) -> Result<Current, EngineError> {
        if let Some(current) = self.current_cached(name) {
            return Ok(current);
        }
        let current = match self.storage.task(name, None).await? {
            Some(function) => Current::Version(function.version),
            None => Current::Unpublished,
        };
        self.set_current(name, current.clone());
        Ok(current)
    }

    /// Remembers what was read, or what a publish made current.
    pub(crate) fn set_current(&self, name: &TaskName, current: Current) {
        let now = self.clock.monotonic_ms();
        let mut cache = self.cache();
        if cache.current.len() >= VERSIONS {
            cache.current.clear();
        }
        cache.current.insert(name.clone(), (current, now));
    }
}
