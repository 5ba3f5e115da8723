//! The audit on the rows of this schema: the shared queries, and what its marker columns promise.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};
use tasker_adaptor::{AUDIT, AuditQuery, Violation};

use crate::fault::Outcome;

/// The shared queries speak of ids; here a row names its parent and its owner by number, and indexes are by number.
const HERE: &[(&str, &str)] = &[
    ("c.parent_id=f.id", "c.parent_no=f.no"),
    ("f.id=c.parent_id", "f.no=c.parent_no"),
    ("p.id=s.parent_id", "p.no=s.parent_no"),
    ("w.id=s.owner", "w.no=s.owner"),
    ("parent_id", "parent_no"),
    (
        "f.turn",
        "(SELECT k.turn FROM frame_counters k WHERE k.no=f.no)",
    ),
    (
        "f.made_count",
        "(SELECT k.made_count FROM frame_counters k WHERE k.no=f.no)",
    ),
    (
        "f.delivered_count",
        "(SELECT k.delivered_count FROM frame_counters k WHERE k.no=f.no)",
    ),
    (
        "s.status='blocked')",
        "s.status='blocked' AND s.blocked_reason IS NOT NULL)",
    ),
];

/// Columns and rows that follow from others, and are there so that an index can be about them.
const MARKERS: &[AuditQuery] = &[
    AuditQuery {
        name: "waits",
        claim: "a timer or a wait for a signal is marked exactly while it is pending",
        sql: "SELECT id FROM stack_runs WHERE waits IS NOT IIF(kind IN ('timer','signal') AND status='pending', 1, NULL)",
    },
    AuditQuery {
        name: "unread",
        claim: "a row is marked exactly while it is settled and not delivered, until its run is folded",
        sql: "SELECT s.id FROM stack_runs s WHERE s.unread IS NOT IIF(s.status IN ('completed','failed') AND s.delivered_order IS NULL, s.parent_no, NULL) \
              AND NOT EXISTS (SELECT 1 FROM task_runs r WHERE r.id=s.task_run_id AND r.folded_at IS NOT NULL)",
    },
    AuditQuery {
        name: "counters",
        claim: "each frame has counters, and nothing else has",
        sql: "SELECT s.id FROM stack_runs s WHERE (s.kind='frame')<>EXISTS (SELECT 1 FROM frame_counters k WHERE k.no=s.no) \
              UNION ALL SELECT k.no FROM frame_counters k WHERE NOT EXISTS (SELECT 1 FROM stack_runs s WHERE s.no=k.no)",
    },
    AuditQuery {
        name: "blocked",
        claim: "a row has a reason exactly while it is blocked",
        sql: "SELECT id FROM stack_runs WHERE (status='blocked')<>(blocked_reason IS NOT NULL)",
    },
];

/// Every row that breaks an invariant.
pub(crate) fn audit(conn: &Connection) -> Outcome<Vec<Violation>> {
    let mut violations = Vec::new();
    for query in AUDIT.iter().chain(MARKERS) {
        let mut statement = conn.prepare(&here(query.sql))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id = match row.get_ref(0)? {
                ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                ValueRef::Integer(no) => id_of(conn, no)?,
                other => format!("{other:?}"),
            };
            violations.push(Violation {
                invariant: query.name,
                claim: query.claim,
                id,
            });
        }
    }
    Ok(violations)
}

/// The id of a row that a query names by number.
fn id_of(conn: &Connection, no: i64) -> Outcome<String> {
    let id = conn
        .prepare("SELECT id FROM stack_runs WHERE no = ?1")?
        .query_row([no], |row| row.get(0))
        .optional()?;
    Ok(id.unwrap_or_else(|| format!("no {no}, which is gone")))
}

fn here(sql: &str) -> String {
    HERE.iter().fold(sql.to_owned(), |sql, (there, here)| {
        sql.replace(there, here)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number is never equal to an id: a comparison of the two would find nothing, whatever is wrong.
    #[test]
    fn no_query_compares_a_number_with_an_id() {
        let numbers = ["parent_no", "owner"];
        for query in AUDIT {
            let sql = here(query.sql);
            assert!(!sql.contains("parent_id"), "{}: {sql}", query.name);
            for (left, rest) in sql.match_indices('=').map(|(at, _)| sql.split_at(at)) {
                let name = |text: &str| {
                    let word: &str = text
                        .split(|c: char| !c.is_alphanumeric() && c != '_' && c != '.')
                        .next()
                        .unwrap_or_default();
                    word.rsplit('.').next().unwrap_or_default().to_owned()
                };
                let start = left
                    .rfind(|c: char| !c.is_alphanumeric() && c != '_' && c != '.')
                    .map_or(0, |at| at + 1);
                let pair = [name(&left[start..]), name(rest.trim_start_matches('='))];
                let is_number = |name: &String| numbers.contains(&name.as_str());
                assert!(
                    !pair.iter().any(is_number) || !pair.contains(&"id".to_owned()),
                    "{}: {pair:?} in {sql}",
                    query.name
                );
            }
        }
    }
}
