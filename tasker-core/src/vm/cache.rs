//! Bytecode of tasks, in memory only: QuickJS trusts it, so it is never stored and never accepted from outside.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tasker_adaptor::TaskVersion;

/// What the cache holds at most, in bytes. Older entries go first.
const MAX_BYTES: usize = 64 << 20;

/// Compiled modules by task version and path, shared by the VM threads.
#[derive(Debug, Default)]
pub struct BytecodeCache {
    entries: Mutex<Entries>,
}

type Key = (TaskVersion, Arc<str>);

#[derive(Debug, Default)]
struct Entries {
    code: HashMap<Key, Arc<[u8]>>,
    age: VecDeque<Key>,
    bytes: usize,
}

impl BytecodeCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn find(&self, version: &TaskVersion, path: &str) -> Option<Arc<[u8]>> {
        self.entries()
            .code
            .get(&(version.clone(), path.into()))
            .cloned()
    }

    pub(super) fn keep(&self, version: &TaskVersion, path: &str, code: &Arc<[u8]>) {
        let mut entries = self.entries();
        let key: Key = (version.clone(), path.into());
        if entries.code.insert(key.clone(), code.clone()).is_none() {
            entries.bytes += code.len();
            entries.age.push_back(key);
        }
        while entries.bytes > MAX_BYTES && entries.age.len() > 1 {
            if let Some(oldest) = entries.age.pop_front()
                && let Some(code) = entries.code.remove(&oldest)
            {
                entries.bytes -= code.len();
            }
        }
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        // Each entry is written whole, so what a panicking thread left is good.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
