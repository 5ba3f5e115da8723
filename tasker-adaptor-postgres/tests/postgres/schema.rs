//! Migrations, permissions, names.

use tasker_adaptor::{NewSignal, RunStore as _, Signals as _, StorageError};
use tasker_adaptor_postgres::PostgresStorage;

use crate::kit::{
    NOW, TestSchema, assert_sound, begin, call, commit_one, connect, id, json, new_run, turn,
    worker,
};

#[tokio::test]
async fn an_adaptor_that_may_not_migrate_says_what_is_missing_and_takes_what_was_applied_by_hand() {
    let schema = TestSchema::new();
    let refused = schema.options().migrate(false).connect().await.unwrap_err();
    let StorageError::MigrationNeeded {
        found: 0,
        needed: 4,
        missing,
    } = &refused
    else {
        panic!("{refused}");
    };
    assert!(missing.contains("0001_first") && missing.contains("0004_lists"));
    let client = connect(&schema.url).await;
    let sql = "SELECT 1 FROM pg_namespace WHERE nspname = $1";
    let there = client.query_opt(sql, &[&schema.name]).await.unwrap();
    assert!(there.is_none(), "nothing may be created");

    let script = PostgresStorage::migration_sql(&schema.name).unwrap();
    client
        .batch_execute(&format!("BEGIN;{script}COMMIT"))
        .await
        .unwrap();
    let storage = schema.options().migrate(false).connect().await.unwrap();
    storage.submit(vec![new_run()], NOW).await.unwrap()[0]
        .as_ref()
        .unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let schema = TestSchema::new();
    drop(schema.storage().await);
    let client = schema.client().await;
    client
        .batch_execute("INSERT INTO tasker_schema (version, name) VALUES (7, 'from_the_future')")
        .await
        .unwrap();
    let refused = schema.options().connect().await.unwrap_err();
    assert!(
        matches!(refused, StorageError::NewerSchema { found: 7, known: 4 }),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_together_migrate_once() {
    let schema = TestSchema::new();
    let starts = (0..8).map(|_| tokio::spawn(schema.options().pool_size(2).connect()));
    for started in futures::future::join_all(starts).await {
        started.unwrap().unwrap();
    }
    let client = schema.client().await;
    let row = client
        .query_one("SELECT count(*) FROM tasker_schema", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 4);
}

/// As on Supabase: roles of the API, and default privileges that would let them in.
async fn as_on_supabase(schema: &TestSchema) -> tokio_postgres::Client {
    let client = connect(&schema.url).await;
    for role in ["anon", "authenticated", "tasker_app"] {
        let sql = format!(
            "DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        );
        client.batch_execute(&sql).await.unwrap();
    }
    client
        .batch_execute(&format!(
            "CREATE SCHEMA {0}; GRANT USAGE ON SCHEMA {0} TO anon, authenticated;
             ALTER DEFAULT PRIVILEGES IN SCHEMA {0} GRANT ALL ON TABLES TO anon, authenticated, PUBLIC;
             ALTER DEFAULT PRIVILEGES IN SCHEMA {0} GRANT ALL ON SEQUENCES TO anon, authenticated, PUBLIC;",
            schema.name
        ))
        .await
        .unwrap();
    client
}

#[tokio::test]
async fn row_level_security_is_on_and_nothing_is_granted_to_anybody() {
    let schema = TestSchema::new();
    let client = as_on_supabase(&schema).await;
    drop(schema.storage().await);
    let open = client
        .query(
            "SELECT r.name || ' ' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             CROSS JOIN unnest(ARRAY['anon', 'authenticated']) AS r(name) WHERE n.nspname = $1 AND \
             CASE c.relkind WHEN 'r' THEN NOT c.relrowsecurity OR has_table_privilege(r.name, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') \
             WHEN 'S' THEN has_sequence_privilege(r.name, c.oid, 'USAGE, SELECT, UPDATE') ELSE false END \
             UNION ALL SELECT r.name || ' schema' FROM unnest(ARRAY['anon', 'authenticated']) AS r(name) \
             WHERE has_schema_privilege(r.name, $1, 'USAGE, CREATE')",
            &[&schema.name],
        )
        .await
        .unwrap();
    let open: Vec<String> = open.iter().map(|row| row.get(0)).collect();
    assert!(open.is_empty(), "{open:?} can be reached by others");
    let count = client
        .query_one(
            "SELECT count(*) FROM pg_tables WHERE schemaname = $1",
            &[&schema.name],
        )
        .await
        .unwrap();
    assert_eq!(count.get::<_, i64>(0), 8);
}

#[test]
fn what_others_keep_in_public_stays_theirs() {
    let script = PostgresStorage::migration_sql("public").unwrap();
    assert!(!script.contains("ON SCHEMA"), "{script}");
    assert!(script.contains("ENABLE ROW LEVEL SECURITY"));
    assert_eq!(
        script.matches(" LOOP\n").count(),
        script.matches("END LOOP;\n").count()
    );
    let script = PostgresStorage::migration_sql("other").unwrap();
    assert!(script.contains("REVOKE ALL ON SCHEMA \"other\" FROM PUBLIC"));
}

#[tokio::test]
async fn a_role_that_is_not_the_owner_works_with_what_the_guide_grants_it() {
    let guide = include_str!("../../../docs/postgres.md");
    let (_, rest) = guide.split_once("## Permissions").unwrap();
    let (_, rest) = rest.split_once("```sql\n").unwrap();
    let (sql, _) = rest.split_once("```").unwrap();

    let schema = TestSchema::new();
    let client = as_on_supabase(&schema).await;
    drop(schema.storage().await);
    let url = schema.url_with("role%3Dtasker_app");
    let as_app = async || schema.options_at(&url).migrate(false).connect().await;
    let refused = as_app().await.unwrap_err();
    assert!(
        refused.to_string().contains("permission denied"),
        "{refused}"
    );

    let sql = sql
        .replace("'tasker'", &format!("'{}'", schema.name))
        .replace("SCHEMA tasker ", &format!("SCHEMA {} ", schema.name))
        .replace("ON tasker.", &format!("ON {}.", schema.name))
        .replace("TO app", "TO tasker_app");
    client.batch_execute(&sql).await.unwrap();
    let storage = as_app().await.unwrap();
    let worker = worker(&storage).await;
    let held = begin(&storage, worker).await;
    let signal = NewSignal {
        id: id(),
        run: held.run,
        name: "go".to_owned(),
        payload: json("1"),
    };
    assert!(storage.send_signal(signal, NOW).await.unwrap());
    let made = call(true);
    commit_one(&storage, turn(held, vec![made]))
        .await
        .unwrap()
        .unwrap();
    assert_sound(&storage).await;
}

#[tokio::test]
async fn a_schema_may_have_any_name_and_two_in_one_database_do_not_meet() {
    let (mut first, second) = (TestSchema::new(), TestSchema::new());
    first.name = format!("Über \"{}", first.name.trim_start_matches("test_"));
    let storage = first.options().connect().await.unwrap();
    let run = new_run();
    storage.submit(vec![run.clone()], NOW).await.unwrap()[0]
        .as_ref()
        .unwrap();
    assert!(storage.run(run.id).await.unwrap().is_some());
    assert!(second.storage().await.run(run.id).await.unwrap().is_none());
    let client = connect(&first.url).await;
    let quoted = first.name.replace('"', "\"\"");
    client
        .batch_execute(&format!("DROP SCHEMA \"{quoted}\" CASCADE"))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_cannot_be_reached_is_unavailable_and_shows_no_password() {
    let url = "postgres://me:hunter2@127.0.0.1:1/db?connect_timeout=2";
    let error = PostgresStorage::connect(url).await.unwrap_err();
    assert!(
        matches!(error, StorageError::Unavailable { .. }) && error.is_retryable(),
        "{error}"
    );
    let options = PostgresStorage::options(url);
    let unreadable = PostgresStorage::connect("postgres://me:hunter2@[")
        .await
        .unwrap_err();
    for text in [
        error.to_string(),
        format!("{error:?}"),
        format!("{options:?}"),
        format!("{unreadable:?}"),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}
