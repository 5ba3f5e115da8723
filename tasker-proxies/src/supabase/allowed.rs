//! What chains may be about: tables, functions, operations and schemas, and names that are none.

use tasker_core::service::ServiceError;

use super::query::Query;

/// What a chain may be about. An empty list allows nothing, `None` everything.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Tables and views, also those embedded in a `select`.
    pub tables: Option<Vec<String>>,
    /// Functions that `rpc` may call.
    pub functions: Option<Vec<String>>,
    /// `select`, `insert`, `upsert`, `update`, `delete`, `rpc`.
    pub operations: Option<Vec<String>>,
    /// Schemas that `schema(…)` may name besides the configured one.
    pub schemas: Option<Vec<String>>,
}

/// Functions that a `select` may call; any other name before `()` embeds a table.
const AGGREGATES: [&str; 5] = ["avg", "count", "max", "min", "sum"];

const OPERATIONS: [&str; 6] = ["select", "insert", "upsert", "update", "delete", "rpc"];

/// Every table that a `select` embeds must be allowed as well.
pub(super) fn check_embedded(query: &Query, allowed: &Allowed) -> Result<(), ServiceError> {
    let (Some(tables), Some(select)) = (allowed.tables.as_deref(), query.get("select")) else {
        return Ok(());
    };
    for table in embedded(select) {
        permit("table", &table, Some(tables))?;
    }
    Ok(())
}

/// The names before each `(` of a select, except functions (`amount.sum()`, `count()`): `alias:table!hint(columns)`.
fn embedded(select: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut token = String::new();
    let mut quoted = false;
    let mut letters = select.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => quoted = !quoted,
            _ if quoted => token.push(letter),
            '(' => {
                let last = token.rsplit(['.', ':']).next().unwrap_or_default();
                let function = letters.peek() == Some(&')') && AGGREGATES.contains(&last);
                let name = token.rsplit(':').next().unwrap_or_default();
                let name = name.trim_start_matches("...");
                let name = name.split('!').next().unwrap_or_default();
                if !function {
                    names.push(name.to_owned());
                }
                token.clear();
            }
            ',' | ')' => token.clear(),
            _ => token.push(letter),
        }
    }
    names
}

pub(super) fn check_name(what: &str, name: &str) -> Result<(), ServiceError> {
    let bad = name.is_empty()
        || name == "."
        || name == ".."
        || name.contains(['/', '\\'])
        || name.chars().any(char::is_control);
    if bad {
        return Err(ServiceError::validation(format!(
            "supabase: {name:?} cannot be the name of a {what}"
        )));
    }
    Ok(())
}

pub(super) fn permit(
    what: &str,
    name: &str,
    allowed: Option<&[String]>,
) -> Result<(), ServiceError> {
    match allowed {
        Some(names) if !names.iter().any(|known| known == name) => {
            Err(ServiceError::authorization(format!(
                "supabase: the {what} {name:?} is not on the list of allowed ones; the host adds it to the service's options"
            )))
        }
        _ => Ok(()),
    }
}

pub(super) fn permit_operation(name: &str, allowed: &Allowed) -> Result<(), ServiceError> {
    if OPERATIONS.contains(&name) {
        permit("operation", name, allowed.operations.as_deref())
    } else {
        Ok(())
    }
}
