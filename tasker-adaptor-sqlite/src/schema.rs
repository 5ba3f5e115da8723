//! Migrations: numbered, forward-only, each in a transaction of its own.

use std::fmt::Write as _;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use tasker_adaptor::StorageError;

use crate::fault::Outcome;

struct Migration {
    number: u32,
    name: &'static str,
    sql: &'static str,
}

/// Every migration there ever was, in order. A released one never changes.
const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "0001_first",
        sql: include_str!("../migrations/0001_first.sql"),
    },
    Migration {
        number: 2,
        name: "0002_calls",
        sql: include_str!("../migrations/0002_calls.sql"),
    },
    Migration {
        number: 3,
        name: "0003_lean",
        sql: include_str!("../migrations/0003_lean.sql"),
    },
    Migration {
        number: 4,
        name: "0004_counters",
        sql: include_str!("../migrations/0004_counters.sql"),
    },
];

/// The newest schema that this build knows.
pub(crate) const NEWEST: u32 = MIGRATIONS[MIGRATIONS.len() - 1].number;

const LEDGER: &str = "CREATE TABLE IF NOT EXISTS tasker_schema (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT";

/// All migrations as one script for the `sqlite3` shell, for hosts that forbid the adaptor to make them.
pub(crate) fn script() -> String {
    let mut script = format!(
        "PRAGMA auto_vacuum = INCREMENTAL;\nPRAGMA journal_mode = WAL;\nBEGIN IMMEDIATE;\n{LEDGER};\n"
    );
    for migration in MIGRATIONS {
        let _ = write!(script, "\n{}\n{};\n", migration.sql, record(migration));
    }
    script.push_str("COMMIT;\n");
    script
}

/// The schema of the file; 0 when it has none.
pub(crate) fn version(connection: &Connection) -> Outcome<u32> {
    let there = connection
        .query_row(
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'tasker_schema'",
            [],
            |_| Ok(()),
        )
        .optional()?;
    if there.is_none() {
        return Ok(0);
    }
    let version: Option<u32> =
        connection.query_row("SELECT MAX(version) FROM tasker_schema", [], |row| {
            row.get(0)
        })?;
    Ok(version.unwrap_or(0))
}

/// Refuses a file from a newer build, and one that needs migrations nobody may make. Changes nothing.
pub(crate) fn check(connection: &Connection, may_migrate: bool) -> Outcome<u32> {
    let found = version(connection)?;
    if found > NEWEST {
        return Err(StorageError::NewerSchema {
            found,
            known: NEWEST,
        }
        .into());
    }
    if found < NEWEST && !may_migrate {
        let missing: Vec<&str> = MIGRATIONS
            .iter()
            .filter(|migration| migration.number > found)
            .map(|migration| migration.name)
            .collect();
        return Err(StorageError::MigrationNeeded {
            found,
            needed: NEWEST,
            missing: missing.join(", "),
        }
        .into());
    }
    Ok(found)
}

/// Makes the missing migrations. Several processes may try at once: each step looks again under the write lock.
pub(crate) fn migrate(connection: &mut Connection) -> Outcome<()> {
    for migration in MIGRATIONS {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if check(&transaction, true)? < migration.number {
            transaction.execute_batch(LEDGER)?;
            transaction.execute_batch(migration.sql)?;
            transaction.execute_batch(&record(migration))?;
            transaction.commit()?;
        }
    }
    Ok(())
}

fn record(migration: &Migration) -> String {
    format!(
        "INSERT INTO tasker_schema (version, name, applied_at) VALUES ({}, '{}', unixepoch() * 1000)",
        migration.number, migration.name
    )
}
