//! Numbered migrations, forward only.
//!
//! All that are missing run in one transaction under an advisory lock, so that many processes may start at once.

use tasker_adaptor::StorageError;
use tokio_postgres::Client;

use crate::error::from_driver;
use crate::schema::Schema;
use crate::session::BEGIN;

struct Migration {
    version: u32,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "0001_first",
        sql: include_str!("../migrations/0001_first.sql"),
    },
    Migration {
        version: 2,
        name: "0002_calls",
        sql: include_str!("../migrations/0002_calls.sql"),
    },
    Migration {
        version: 3,
        name: "0003_hot",
        sql: include_str!("../migrations/0003_hot.sql"),
    },
    Migration {
        version: 4,
        name: "0004_lists",
        sql: include_str!("../migrations/0004_lists.sql"),
    },
];

/// The newest schema that this build knows.
pub(crate) const NEWEST: u32 = 4;

/// What stands around the migrations: the schema, the list of what was applied.
const SCHEMA: &str = "CREATE SCHEMA IF NOT EXISTS $schema$;\n";
const FRAME: &str = "CREATE TABLE IF NOT EXISTS tasker.tasker_schema (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
";

/// Nobody but the owner and those whom the owner names: also not the roles that Supabase's API answers for.
const PERMISSIONS: &str = r"DO $do$
DECLARE
    t record;
    r record;
BEGIN
    REVOKE ALL ON SCHEMA $schema$ FROM PUBLIC;
    FOR r IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') AND rolname <> current_user LOOP
        EXECUTE format('REVOKE ALL ON SCHEMA %I FROM %I', $name$, r.rolname);
    END LOOP;
    FOR t IN SELECT c.oid::regclass AS name, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $name$ AND c.relkind IN ('r', 'S') AND c.relname = ANY (ARRAY['tasker_schema', 'task_functions',
            'task_runs', 'stack_runs', 'log_lines', 'workers', 'signals', 'signals_arrival_seq', 'keystore'])
    LOOP
        IF t.relkind = 'r' THEN
            EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', t.name);
        END IF;
        -- `ON TABLE` names sequences too.
        EXECUTE format('REVOKE ALL ON TABLE %s FROM PUBLIC', t.name);
        FOR r IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') AND rolname <> current_user LOOP
            EXECUTE format('REVOKE ALL ON TABLE %s FROM %I', t.name, r.rolname);
        END LOOP;
    END LOOP;
END
$do$;
";

/// All migrations as one script for the schema.
pub(crate) fn script(schema: &Schema) -> String {
    render(schema, SCHEMA) + &script_from(schema, 0)
}

fn script_from(schema: &Schema, found: u32) -> String {
    let missing = MIGRATIONS.iter().filter(|one| one.version > found);
    let applied = missing.map(|migration| {
        let note = format!(
            "INSERT INTO tasker.tasker_schema (version, name) VALUES ({}, '{}');\n",
            migration.version, migration.name
        );
        render(schema, migration.sql) + &render(schema, &note)
    });
    render(schema, FRAME) + &applied.collect::<String>() + &render(schema, PERMISSIONS)
}

fn render(schema: &Schema, sql: &str) -> String {
    let literal = format!("'{}'", schema.name().replace('\'', "''"));
    let text = schema
        .render(sql)
        .replace("$schema$", schema.quoted())
        .replace("$name$", &literal);
    if schema.name() == "public" {
        // Revoking the use of `public` would break what others keep there.
        let (before, rest) = text
            .split_once("    REVOKE ALL ON SCHEMA")
            .unwrap_or((&text, ""));
        let (_, after) = rest.split_once("    END LOOP;\n").unwrap_or(("", rest));
        return format!("{before}{after}");
    }
    text
}

/// Looks at the schema and, if it may, brings it to the newest version.
pub(crate) async fn run(
    client: &Client,
    schema: &Schema,
    may_migrate: bool,
) -> Result<(), StorageError> {
    let found = version(client, schema).await?;
    if found == NEWEST {
        return Ok(());
    }
    check(found, may_migrate)?;
    client.batch_execute(BEGIN).await.map_err(from_driver)?;
    let outcome = apply(client, schema).await;
    let end = if outcome.is_ok() {
        "COMMIT"
    } else {
        "ROLLBACK"
    };
    let ended = client.batch_execute(end).await.map_err(from_driver);
    outcome.and(ended)
}

async fn apply(client: &Client, schema: &Schema) -> Result<(), StorageError> {
    let lock = format!("SELECT pg_advisory_xact_lock({})", schema.lock_key());
    client.batch_execute(&lock).await.map_err(from_driver)?;
    // Another process may have done it while this one waited.
    let found = version(client, schema).await?;
    check(found, true)?;
    if found < NEWEST {
        let script = script_from(schema, found);
        // Only where it is missing: who may not create schemas may still own one.
        let script = if is_there(client, schema).await? {
            script
        } else {
            render(schema, SCHEMA) + &script
        };
        client.batch_execute(&script).await.map_err(from_driver)?;
    }
    Ok(())
}

fn check(found: u32, may_migrate: bool) -> Result<(), StorageError> {
    if found > NEWEST {
        return Err(StorageError::NewerSchema {
            found,
            known: NEWEST,
        });
    }
    if found < NEWEST && !may_migrate {
        let missing: Vec<_> = MIGRATIONS
            .iter()
            .filter(|migration| migration.version > found)
            .map(|migration| migration.name)
            .collect();
        return Err(StorageError::MigrationNeeded {
            found,
            needed: NEWEST,
            missing: missing.join(", "),
        });
    }
    Ok(())
}

/// Whether the schema exists.
async fn is_there(client: &Client, schema: &Schema) -> Result<bool, StorageError> {
    let name = schema.name();
    let found = client
        .query_typed(
            "SELECT 1 FROM pg_namespace WHERE nspname::text = $1",
            &[(&name, tokio_postgres::types::Type::TEXT)],
        )
        .await
        .map_err(from_driver)?;
    Ok(!found.is_empty())
}

/// The version that is there; 0 for none.
async fn version(client: &Client, schema: &Schema) -> Result<u32, StorageError> {
    let name = schema.name();
    // Not `to_regclass`: after a wait for the lock it may still answer from a cache that another process made stale.
    let found = client
        .query_typed(
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname::text = $1 AND c.relname = 'tasker_schema'",
            &[(&name, tokio_postgres::types::Type::TEXT)],
        )
        .await
        .map_err(from_driver)?;
    if found.is_empty() {
        return Ok(0);
    }
    let newest = schema.sql("SELECT coalesce(max(version), 0) FROM tasker.tasker_schema");
    let rows = client
        .query_typed(&newest, &[])
        .await
        .map_err(from_driver)?;
    Ok(rows.first().map_or(0, |row| row.get::<_, i32>(0)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_migration_is_the_one_the_build_knows() {
        let versions: Vec<_> = MIGRATIONS.iter().map(|one| one.version).collect();
        assert_eq!(versions, (1..=NEWEST).collect::<Vec<_>>());
    }

    #[test]
    fn the_script_names_one_schema_only() {
        let script = script(&Schema::new("mine").unwrap());
        assert!(script.contains("CREATE TABLE \"mine\".task_runs"));
        assert!(
            !script.contains("tasker.")
                && !script.contains("$schema$")
                && !script.contains("$name$"),
            "{script}"
        );
    }
}
