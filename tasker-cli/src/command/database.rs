//! `tasker db`: migrate, check, vacuum.

use serde_json::json;
use tasker_core::StorageError;

use super::Here;
use crate::args::Db;
use crate::error::CliError;
use crate::host::{self, Database};

/// Rows deleted at one time.
const BATCH: usize = 1_000;

/// Does it.
pub(super) async fn perform(here: &Here, what: Db) -> Result<(), CliError> {
    match what {
        Db::Migrate => migrate(here).await,
        Db::Check => check(here).await,
        Db::Vacuum => vacuum(here).await,
    }
}

async fn migrate(here: &Here) -> Result<(), CliError> {
    let database = Database::of(&here.config)?;
    let place = database.shown();
    if database.is_missing() {
        database.open(true).await?;
        return here.output.answer(
            &json!({ "database": place, "migrated": true, "from": 0 }),
            || format!("{place} was made"),
        );
    }
    match database.open(false).await {
        Ok(_) => here
            .output
            .answer(&json!({ "database": place, "migrated": false }), || {
                format!("{place} is up to date")
            }),
        Err(CliError::Database {
            source:
                StorageError::MigrationNeeded {
                    found,
                    needed,
                    missing,
                },
            ..
        }) => {
            database.open(true).await?;
            here.output.answer(
                &json!({ "database": place, "migrated": true, "from": found, "to": needed }),
                || format!("{place}: schema {found} → {needed} ({missing})"),
            )
        }
        Err(error) => Err(error),
    }
}

async fn check(here: &Here) -> Result<(), CliError> {
    let violations = host::storage(&here.config).await?.audit().await?;
    let lines: Vec<String> = violations
        .iter()
        .map(|violation| format!("{violation:?}"))
        .collect();
    here.output.answer(&json!({ "violations": lines }), || {
        if lines.is_empty() {
            "every row keeps the rules".to_owned()
        } else {
            lines.join("\n")
        }
    })?;
    if lines.is_empty() {
        Ok(())
    } else {
        Err(CliError::Audit(lines.len()))
    }
}

async fn vacuum(here: &Here) -> Result<(), CliError> {
    let storage = host::storage(&here.config).await?;
    let mut rows = 0;
    loop {
        let deleted = storage.delete_folded_rows(BATCH).await?;
        rows += deleted;
        if deleted == 0 {
            break;
        }
    }
    while storage.compact(0).await? {}
    here.output.answer(&json!({ "rows": rows }), || {
        format!("{rows} rows of ended runs removed, free space given back")
    })
}
