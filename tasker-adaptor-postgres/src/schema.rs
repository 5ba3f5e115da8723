//! The name of the schema, and statements written for it.
//!
//! Statements are constants that say `tasker.` before every table; [`Schema::sql`] puts the caller's schema there.
//! Qualified names work behind poolers, where a `search_path` set for one transaction is gone in the next.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tasker_adaptor::StorageError;

/// PostgreSQL cuts identifiers after 63 bytes, and the channel's name has a prefix of 7.
const MAX_NAME: usize = 56;

/// A schema and its statements.
#[derive(Debug)]
pub(crate) struct Schema {
    name: String,
    quoted: String,
    statements: RwLock<HashMap<(usize, usize), Arc<str>>>,
    /// How many about its tables were asked for, each as often as it was: hints, which go out in between, are not.
    #[cfg(test)]
    asked: std::sync::atomic::AtomicUsize,
}

impl Schema {
    pub(crate) fn new(name: &str) -> Result<Self, StorageError> {
        let sound = !name.is_empty()
            && name.len() <= MAX_NAME
            && !name.starts_with("pg_")
            && !name.contains(char::is_control);
        if !sound {
            return Err(StorageError::Misuse {
                what: format!(
                    "{name:?} is no schema name: give 1 to {MAX_NAME} bytes without control characters that do not begin with pg_"
                ),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            quoted: format!("\"{}\"", name.replace('"', "\"\"")),
            statements: RwLock::default(),
            #[cfg(test)]
            asked: std::sync::atomic::AtomicUsize::default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The name as an identifier.
    pub(crate) fn quoted(&self) -> &str {
        &self.quoted
    }

    /// The channel of its hints.
    pub(crate) fn channel(&self) -> String {
        format!("tasker:{}", self.name)
    }

    /// The key of the advisory lock that migrations hold.
    pub(crate) fn lock_key(&self) -> i64 {
        // FNV-1a: the same in every build, which `Hasher` does not promise.
        let hash = self
            .channel()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        hash as i64
    }

    /// The statement for this schema.
    pub(crate) fn sql(&self, statement: &'static str) -> Arc<str> {
        #[cfg(test)]
        if statement.contains("tasker.") {
            let relaxed = std::sync::atomic::Ordering::Relaxed;
            self.asked.fetch_add(1, relaxed);
        }
        // A constant has one address; two constants with the same text may share it, and then mean the same.
        let address = (statement.as_ptr() as usize, statement.len());
        let known = self
            .statements
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&address)
            .cloned();
        known.unwrap_or_else(|| {
            let text: Arc<str> = self.render(statement).into();
            self.statements
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(address, Arc::clone(&text));
            text
        })
    }

    /// How many statements about the tables were made so far.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Every statement that was used so far.
    #[cfg(test)]
    pub(crate) fn used(&self) -> Vec<Arc<str>> {
        let statements = self
            .statements
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        statements.values().cloned().collect()
    }

    /// As [`Schema::sql`], for text that is used once.
    pub(crate) fn render(&self, statement: &str) -> String {
        statement.replace("tasker.", &format!("{}.", self.quoted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_name_the_callers_schema() {
        let schema = Schema::new("my \"own\"").unwrap();
        assert_eq!(
            &*schema.sql("SELECT 1 FROM tasker.workers"),
            "SELECT 1 FROM \"my \"\"own\"\"\".workers"
        );
    }

    #[test]
    fn names_that_postgres_would_cut_or_refuse_are_refused_here() {
        for name in ["", "pg_x", "a\0b", &"x".repeat(57)] {
            assert!(Schema::new(name).is_err(), "{name:?}");
        }
    }
}
