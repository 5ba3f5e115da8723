//! Journals of earlier versions, replayed for ever: databases in which every run stands in the middle, as SQL text under `journals/`.
//!
//! A folder is never changed after its version is out. A new one is written, when tasks can do something new, by
//! `TASKER_WRITE_JOURNALS=NAME cargo test -p tasker-core --test journals`: each case runs up to its call of `hold.here`; what it gives
//! after that is noted as what it must give for ever.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::testing::{Stub, TestClock, TestEngine};
use tasker_core::{Json, ServiceError, Storage};

/// Name and source. Each calls `hold.here` once, late, and gives back what it saw before.
const CASES: [(&str, &str); 9] = [
    (
        "sequence",
        "module.exports = async (input, { tools }) => { const seen = []; for (let i = 0; i < 6; i++) seen.push(await tools.svc.step(i)); seen.push(await tools.hold.here()); seen.push(await tools.svc.step('end')); return { input, seen } }",
    ),
    (
        "caught",
        "module.exports = async (input, { tools }) => { const seen = []; try { await tools.svc.fails('first') } catch (e) { seen.push([e.name, e.type, e.code, e.status, e.message]) } finally { seen.push(await tools.svc.step('finally')) } seen.push(await tools.hold.here()); try { await tools.svc.fails('second') } catch (e) { seen.push(e.message) } return seen }",
    ),
    (
        "parallel",
        "module.exports = async (input, { tools }) => { const all = await Promise.all([1, 2, 3, 4].map(n => tools.svc.step(n))); const race = await Promise.race([tools.svc.step('fast'), tools.sleep(3600000)]); const settled = await Promise.allSettled([tools.svc.fails('x'), tools.svc.step('y')]); const any = await Promise.any([tools.svc.fails('x'), tools.svc.step('z')]); const held = await tools.hold.here(); return { all, race, settled: settled.map(s => s.status), any, held } }",
    ),
    (
        "recorded",
        "module.exports = async (input, { tools }) => { const before = [Date.now(), new Date().toISOString(), Math.random(), crypto.randomUUID()]; await tools.sleep(5000); const after = [Date.now() > before[0], Math.random(), [...crypto.getRandomValues(new Uint8Array(4))]]; await tools.hold.here(before, after); return { before, after, last: [Math.random(), crypto.randomUUID()] } }",
    ),
    (
        "child",
        "module.exports = async (n, { tools }) => { const a = await tools.svc.step(n * 2); if (n === 3) await tools.hold.here(); return a + 1 }",
    ),
    (
        "nested",
        "module.exports = async (input, { tools }) => { const seen = []; for (const n of [1, 2, 3]) seen.push(await tools.tasks.execute('child', n)); return seen }",
    ),
    (
        "timers",
        "module.exports = async (input, { tools }) => { const seen = []; await new Promise(done => { let n = 0; const t = setInterval(() => { seen.push(++n); if (n === 3) { clearInterval(t); done() } }, 1000) }); await new Promise(r => setTimeout(r, 2000)); const c = setTimeout(() => seen.push('never'), 10); clearTimeout(c); seen.push(await tools.hold.here()); await new Promise(r => setTimeout(() => { seen.push('late'); r() }, 500)); return seen }",
    ),
    (
        "iterated",
        "async function* pages(tools) { let page = 0; while (page < 4) yield await tools.svc.step(page++) } module.exports = async (input, { tools }) => { const seen = []; for await (const page of pages(tools)) seen.push(page); seen.push(await tools.hold.here()); for await (const page of pages(tools)) seen.push(page * 10); return seen }",
    ),
    (
        "fluent",
        "module.exports = async (input, context) => { const { data } = await context.tools.base.from('people').select('id, name').eq('id', 1); await context.tools.hold.here(); const more = await context.tools.base.from('people').insert({ name: 'Ada' }).select(); console.log('end', more); return { data, more } }",
    ),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journals")
}

/// An engine with the services of the cases; `hold` answers or never does. Two engines on one file need two seeds.
async fn start(path: &Path, holds: bool, seed: u64) -> (TestEngine, Stub) {
    let hold = Stub::new("hold").answer_later("here", move |_| {
        if holds {
            futures::future::pending().boxed()
        } else {
            futures::future::ready(Ok(Json::from("held").unwrap())).boxed()
        }
    });
    let svc = Stub::new("svc").answer("fails", |call| {
        let text: String = call.arg(0)?;
        Err(ServiceError::conflict(format!("no {text}")).with_code("NO"))
    });
    let base = Base;
    let storage: Arc<dyn Storage> = Arc::new(SqliteStorage::open(path).await.unwrap());
    let engine = TestEngine::on(storage, TestClock::default())
        .stub(&hold)
        .stub(&svc)
        .with(|builder| builder.service(base).id_seed(seed))
        .start()
        .await;
    (engine, hold)
}

/// A fluent service that tells its links.
struct Base;

#[async_trait::async_trait]
impl tasker_core::ServiceProxy for Base {
    fn describe(&self) -> tasker_core::ServiceDescription {
        tasker_core::ServiceDescription::new("base").fluent()
    }

    async fn call(&self, call: tasker_core::ServiceCall) -> Result<Json, ServiceError> {
        let links: Vec<String> = call
            .chain
            .iter()
            .map(|link| {
                let args: Vec<&str> = link.args.iter().flatten().map(Json::text).collect();
                format!("{}({})", link.name, args.join(","))
            })
            .collect();
        Ok(Json::from(&json!({ "data": links.join(".") })).unwrap())
    }
}

async fn publish(test: &TestEngine) {
    for (name, source) in CASES {
        test.publish(source, name).await;
    }
}

/// Cases that are submitted; the others run inside them.
fn roots() -> impl Iterator<Item = &'static str> {
    CASES
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| *name != "child")
}

#[tokio::test]
async fn journals_of_earlier_versions_are_replayed() {
    if let Ok(name) = std::env::var("TASKER_WRITE_JOURNALS") {
        write(&folder().join(name)).await;
    }
    let mut versions: Vec<PathBuf> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    versions.sort();
    assert!(
        !versions.is_empty(),
        "no journals in {}",
        folder().display()
    );
    for version in versions {
        let expected = std::fs::read_to_string(version.join("expected.json")).unwrap();
        let expected: BTreeMap<String, (String, Value)> = serde_json::from_str(&expected).unwrap();
        assert!(expected.len() >= 8, "{version:?}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasker.db");
        let sql = std::fs::read_to_string(version.join("held.sql")).unwrap();
        let file = Connection::open(&path).unwrap();
        file.execute_batch(&sql).unwrap();
        let open = "SELECT COUNT(*) FROM task_runs WHERE ended_at IS NULL";
        let open: i64 = file.query_row(open, [], |row| row.get(0)).unwrap();
        assert_eq!(open, expected.len() as i64, "each stands in the middle");
        drop(file);
        let (test, hold) = start(&path, false, 8).await;
        for (case, (run, result)) in &expected {
            let handle = test.engine().run(run.parse().unwrap()).await.unwrap();
            let found: Value = test
                .finish(&handle)
                .await
                .unwrap_or_else(|error| panic!("{case} of {}: {error}", version.display()));
            assert_eq!(&found, result, "{case} of {}", version.display());
        }
        assert_eq!(hold.performed("here"), expected.len(), "each held once");
        test.engine().quiet().await;
        assert!(test.audit().await.is_empty());
    }
}

async fn write(to: &Path) {
    assert!(
        !to.join("held.sql").exists(),
        "{} is there already and stays as it is",
        to.display()
    );
    std::fs::create_dir_all(to).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasker.db");
    let (test, hold) = start(&path, true, 7).await;
    publish(&test).await;
    let mut runs = Vec::new();
    for (done, case) in roots().enumerate() {
        let handle = test.submit(case, &json!({ "case": case })).await;
        while hold.performed("here") == done {
            test.engine().quiet_but_calls().await;
            test.clock().advance_to_next().await;
        }
        runs.push((case, handle.id()));
    }
    test.engine().quiet_but_calls().await;
    test.engine().abandon();
    std::fs::write(to.join("held.sql"), dump(&path)).unwrap();
    let (test, _hold) = start(&path, false, 8).await;
    let mut expected = BTreeMap::new();
    for (case, id) in runs {
        let handle = test.engine().run(id).await.unwrap();
        let result: Value = test.finish(&handle).await.unwrap();
        expected.insert(case, (id.to_string(), result));
    }
    let text = serde_json::to_string_pretty(&expected).unwrap();
    std::fs::write(to.join("expected.json"), text + "\n").unwrap();
}

/// The whole file as SQL text.
fn dump(path: &Path) -> String {
    use std::fmt::Write as _;

    let db = Connection::open(path).unwrap();
    let version: i64 = db
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    let application: i64 = db
        .query_row("PRAGMA application_id", [], |row| row.get(0))
        .unwrap();
    let mut sql = format!(
        "PRAGMA user_version = {version};\nPRAGMA application_id = {application};\nBEGIN;\n"
    );
    let mut objects = db
        .prepare("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type <> 'table', rowid")
        .unwrap();
    let objects: Vec<(String, String, String)> = objects
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for (kind, name, create) in &objects {
        writeln!(sql, "{create};").unwrap();
        if kind != "table" {
            continue;
        }
        let mut rows = db.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
        let columns = rows.column_count();
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let cells: Vec<String> = (0..columns)
                .map(|n| match row.get_ref(n).unwrap() {
                    ValueRef::Null => "NULL".to_owned(),
                    ValueRef::Integer(number) => number.to_string(),
                    ValueRef::Real(number) => format!("{number:?}"),
                    ValueRef::Text(text) => {
                        format!(
                            "'{}'",
                            std::str::from_utf8(text).unwrap().replace('\'', "''")
                        )
                    }
                    ValueRef::Blob(bytes) => {
                        let mut hex = String::new();
                        for byte in bytes {
                            write!(hex, "{byte:02x}").unwrap();
                        }
                        format!("x'{hex}'")
                    }
                })
                .collect();
            writeln!(sql, "INSERT INTO \"{name}\" VALUES ({});", cells.join(", ")).unwrap();
        }
    }
    sql + "COMMIT;\n"
}
