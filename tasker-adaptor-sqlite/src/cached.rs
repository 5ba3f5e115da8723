//! The one way to prepare a statement: from the connection's cache.
//!
//! In tests every statement is noted, so that a test can look at the plan of each query that the engine causes.

use rusqlite::{CachedStatement, Connection};

/// Statements from the cache.
pub(crate) trait Cached {
    /// The statement, prepared when it is used for the first time on this connection.
    fn cached(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>>;
}

impl Cached for Connection {
    fn cached(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        #[cfg(test)]
        noted::note(sql);
        self.prepare_cached(sql)
    }
}

#[cfg(test)]
pub(crate) mod noted {
    use std::collections::BTreeSet;
    use std::sync::{Mutex, PoisonError};

    static STATEMENTS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

    pub(super) fn note(sql: &str) {
        let mut statements = STATEMENTS.lock().unwrap_or_else(PoisonError::into_inner);
        if !statements.contains(sql) {
            statements.insert(sql.to_owned());
        }
    }

    /// Every statement that was prepared by this process.
    pub(crate) fn all() -> Vec<String> {
        let statements = STATEMENTS.lock().unwrap_or_else(PoisonError::into_inner);
        statements.iter().cloned().collect()
    }
}
