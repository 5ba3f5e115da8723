//! Every command of `tasker` with the built binary, on a file.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod kit;

use kit::Folder;
use serde_json::{Value, json};

const SUM: &str = "/**\n * Adds.\n * @task sum\n * @param {object} input - Numbers\n * @param {number} input.a - One\n */\nmodule.exports = async function sum(input, context) {\n  console.log('adding', { a: input.a });\n  const b = await context.tools.tasks.execute('two', {});\n  await context.tools.sleep(5);\n  return { total: input.a + b };\n};\n";
const TWO: &str = "/** @task two */\nmodule.exports = async () => 2;\n";
const FAILS: &str =
    "/** @task fails */\nmodule.exports = async () => { throw new TypeError('no luck'); };\n";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("tasks/sum.js", SUM);
    folder.write("tasks/two.js", TWO);
    folder.write("tasks/fails.js", FAILS);
    folder.ok(&["publish", "--all"]);
    folder
}

fn run_id(said: &Value) -> String {
    said["taskRunId"].as_str().unwrap().to_owned()
}

#[test]
fn a_new_folder_runs_its_example() {
    let folder = Folder::new();
    let said = folder.json(&["init"]);
    assert_eq!(said["made"].as_array().unwrap().len(), 4);
    folder.ok(&["publish", "--all"]);
    let said = folder.tasker(&["run", "hello", "--input", r#"{"name":"Ada"}"#, "--poll"]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, r#"{"message":"Hello, Ada!"}"#),
        "{said:?}"
    );
    assert!(
        said.err.contains("sleep"),
        "plain lines when piped: {said:?}"
    );
    assert!(
        !said.err.contains('\x1b'),
        "no drawing when piped: {said:?}"
    );
    let again = folder.json(&["init"]);
    assert_eq!(
        again["kept"].as_array().unwrap().len(),
        4,
        "nothing is written over"
    );
}

#[test]
fn publishing_says_what_changes_and_a_dry_run_changes_nothing() {
    let folder = Folder::new();
    folder.write("tasks/sum.js", SUM);
    folder.write("tasks/two.js", TWO);
    let states = |said: Value| -> Vec<(String, String)> {
        let lines = said.as_array().unwrap().clone();
        lines
            .iter()
            .map(|line| {
                (
                    line["name"].as_str().unwrap().to_owned(),
                    line["state"].as_str().unwrap().to_owned(),
                )
            })
            .collect()
    };
    let pair = |name: &str, state: &str| (name.to_owned(), state.to_owned());
    assert_eq!(
        states(folder.json(&["publish", "--all", "--dry-run"])),
        [pair("sum", "new"), pair("two", "new")]
    );
    assert_eq!(folder.json(&["tasks"]), json!([]));
    assert_eq!(
        states(folder.json(&["publish", "--specific", "two"])),
        [pair("two", "published")]
    );
    assert_eq!(
        states(folder.json(&["publish", "--all"])),
        [pair("sum", "published"), pair("two", "unchanged")]
    );
    folder.write("tasks/two.js", &TWO.replace("=> 2", "=> 3"));
    assert_eq!(
        states(folder.json(&["publish", "--list"])),
        [pair("sum", "unchanged"), pair("two", "changed")]
    );
    let unknown = folder.tasker(&["publish", "--specific", "three"]);
    assert!(
        unknown.code == 2 && unknown.err.contains("sum, two"),
        "{unknown:?}"
    );
    folder.write("tasks/bad.js", "module.exports = async () => {");
    folder.write("tasks/two.js", TWO);
    let bad = folder.tasker(&["publish", "--all"]);
    assert!(bad.code == 1 && bad.err.contains("bad.js"), "{bad:?}");
    assert_eq!(folder.json(&["tasks"]).as_array().unwrap().len(), 2);
}

#[test]
fn a_run_is_waited_for_shown_traced_and_logged() {
    let folder = folder();
    let said = folder.json(&["run", "sum", "-i", r#"{"a":40}"#, "--poll"]);
    assert_eq!(
        (&said["status"], &said["result"]),
        (&json!("completed"), &json!({"total": 42}))
    );
    let id = run_id(&said);
    assert_eq!(
        folder.json(&["status", &id])["result"],
        json!({"total": 42})
    );
    assert!(folder.ok(&["status", &id]).contains("completed"));
    let logs = folder.ok(&["logs", &id, "--follow", "--json"]);
    let line: Value = serde_json::from_str(logs.lines().next().unwrap()).unwrap();
    assert!(
        line["message"].as_str().unwrap().starts_with("adding"),
        "{line}"
    );
    let trace = folder.ok(&["trace", &id]);
    assert!(
        trace.contains("tasks.execute two") && trace.contains('█'),
        "{trace}"
    );
    assert_eq!(
        folder.json(&["trace", &id])["root"]["children"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let runs = folder.json(&["runs", "--task", "sum", "--status", "completed"]);
    assert_eq!(run_id(&runs["runs"][0]), id);
    assert_eq!(
        folder.json(&["runs", "--status", "failed"])["runs"],
        json!([])
    );
}

#[test]
fn the_earlier_spelling_works() {
    let folder = folder();
    assert!(folder.ok(&["task", "--list"]).contains("sum"));
    assert!(folder.ok(&["task", "-l"]).contains("fails"));
    assert_eq!(
        folder.ok(&["task", "--task", "sum", "--input", r#"{"a":1}"#, "--poll"]),
        r#"{"total":3}"#
    );
    assert_eq!(folder.ok(&["task", "-t", "two", "-p"]), "2");
    let id = folder.ok(&["task", "-t", "two"]);
    assert_eq!(folder.json(&["status", &id])["status"], "queued");
    assert_eq!(folder.ok(&["status", &id, "--poll"]), "2");
}

#[test]
fn inputs_come_from_arguments_files_and_standard_input() {
    let folder = folder();
    folder.write("in.json", r#"{"a": 5}"#);
    assert_eq!(
        folder.ok(&["run", "sum", "--input", "@in.json", "--poll"]),
        r#"{"total":7}"#
    );
    assert_eq!(
        folder
            .with(&["run", "sum", "--input", "-", "--poll"], r#"{"a":6}"#, &[])
            .out,
        r#"{"total":8}"#
    );
    let bad = folder.tasker(&["run", "sum", "--input", "{a:1}"]);
    assert!(bad.code == 2 && bad.err.contains("--input"), "{bad:?}");
    let missing = folder.tasker(&["run", "sum", "--input", "@none.json"]);
    assert!(
        missing.code == 1 && missing.err.contains("none.json"),
        "{missing:?}"
    );
    let wrong = folder.tasker(&["run", "sum", "--input", r#"{"a":"x"}"#, "--validate"]);
    assert!(wrong.code == 2 && wrong.err.contains('a'), "{wrong:?}");
}

#[test]
fn typescript_and_relative_imports_are_published() {
    let folder = Folder::new();
    folder.write("tasks/typed.ts", "import { twice } from './shared/twice.ts';\nexport default async function typed(input: { n: number }): Promise<number> {\n  return twice(input.n);\n}\n");
    folder.write(
        "tasks/shared/twice.ts",
        "export const twice = (n: number): number => n * 2;\n",
    );
    folder.ok(&["publish", "--all"]);
    assert_eq!(
        folder.ok(&["run", "typed", "-i", r#"{"n":4}"#, "--poll"]),
        "8"
    );
}

#[test]
fn payloads_pass_as_they_were_written() {
    let folder = folder();
    let input = r#"{"b":1,"a":2.50,"c":1e400}"#;
    let id = folder.ok(&["run", "two", "--input", input]);
    for said in [
        folder.ok(&["status", &id, "--json"]),
        folder.ok(&["runs", "--json"]),
    ] {
        assert!(said.contains(&format!("\"input\":{input}")), "{said}");
    }
}

#[test]
fn a_blocked_run_is_decided_about() {
    let folder = folder();
    let id = folder.ok(&["run", "two"]);
    let file =
        tasker_adaptor_sqlite::rusqlite::Connection::open(folder.path().join("tasker.db")).unwrap();
    file.execute_batch("PRAGMA foreign_keys = OFF; DELETE FROM task_functions WHERE name = 'two'")
        .unwrap();
    drop(file);
    let blocked = folder.tasker(&["status", &id, "--poll"]);
    assert!(
        blocked.code == 4
            && blocked.err.contains("tasker unblock")
            && blocked.err.contains("publish it again"),
        "{blocked:?}"
    );
    assert_eq!(
        folder.json(&["status", &id])["blocked"]["reason"],
        "version_missing"
    );
    folder.ok(&["publish", "--all"]);
    folder.ok(&["unblock", &id, "retry"]);
    assert_eq!(folder.ok(&["status", &id, "--poll"]), "2");
}

#[test]
fn one_key_is_one_run() {
    let folder = folder();
    let first = folder.ok(&["run", "two", "--key", "order-17"]);
    assert_eq!(folder.ok(&["run", "two", "--key", "order-17"]), first);
    let other = folder.tasker(&["run", "two", "--key", "order-17", "--input", "[1]"]);
    assert!(other.code == 1 && other.err.contains(&first), "{other:?}");
}

#[test]
fn a_word_where_none_goes_is_told_where_it_goes() {
    let folder = folder();
    for (words, tip) in [
        (&["run", "two", r#"{"n":1}"#][..], r#"--input '{"n":1}'"#),
        (&["task", "two"], "behind --task"),
        (&["publish", "tasks"], "--dir tasks --all"),
        (&["publish", "--all", "two"], "--specific two"),
        (&["publish", "run"], "--specific run"),
    ] {
        let refused = folder.tasker(words);
        assert!(
            refused.code == 2 && refused.err.contains(tip),
            "{refused:?}"
        );
        let words = [words, &["--json"]].concat();
        let refused = folder.tasker(&words);
        let said: Value = serde_json::from_str(&refused.err).unwrap();
        assert!(said["error"].as_str().unwrap().contains(tip), "{said}");
    }
}

#[test]
fn exit_codes_tell_how_a_run_ended() {
    let folder = folder();
    let failed = folder.tasker(&["run", "fails", "--poll"]);
    assert!(
        failed.code == 3 && failed.err.contains("TypeError: no luck"),
        "{failed:?}"
    );
    let failed = folder.tasker(&["run", "fails", "--poll", "--json"]);
    let view: Value = serde_json::from_str(&failed.out).unwrap();
    assert_eq!(
        (failed.code, &view["failure"]["name"]),
        (3, &json!("TypeError"))
    );
    let unknown = folder.tasker(&["run", "summ"]);
    assert!(
        unknown.code == 6 && unknown.err.contains("sum"),
        "{unknown:?}"
    );
    let unknown = folder.tasker(&["status", "018f0000-0000-7000-8000-000000000000", "--json"]);
    assert_eq!(
        (
            unknown.code,
            serde_json::from_str::<Value>(&unknown.err).unwrap()["exitCode"].clone()
        ),
        (6, json!(6))
    );
    assert_eq!(folder.tasker(&["run"]).code, 2);
    let id = folder.ok(&["run", "two"]);
    assert!(folder.ok(&["cancel", &id]).contains("cancelled"));
    assert_eq!(folder.tasker(&["status", &id, "--poll"]).code, 5);
    let ended = folder.tasker(&["signal", &id, "go"]);
    assert!(
        ended.code == 2 && ended.err.contains("has ended, it is cancelled"),
        "{ended:?}"
    );
    let not_blocked = folder.tasker(&["unblock", &id, "retry"]);
    assert!(
        not_blocked.code == 2 && not_blocked.err.contains("not blocked"),
        "{not_blocked:?}"
    );
}

#[test]
fn a_signal_reaches_the_task_that_waits_for_it() {
    let folder = folder();
    folder.write(
        "tasks/waits.js",
        "module.exports = async function waits(input, { signal }) { return [await signal('paid'), await signal('sent')]; };\n",
    );
    folder.write("paid.json", r#"{"by":"Ada","amount":12.50}"#);
    folder.ok(&["publish", "--all"]);
    let id = folder.ok(&["run", "waits"]);
    // Before its task has begun.
    assert!(folder.ok(&["signal", &id, "sent"]).contains(&id));
    let said = folder.json(&["signal", &id, "paid", "@paid.json"]);
    assert_eq!(said, json!({ "taskRunId": id, "signal": "paid" }));
    let result = folder.ok(&["status", &id, "--poll"]);
    assert_eq!(result, r#"[{"by":"Ada","amount":12.5},null]"#);
    let long = "x".repeat(201);
    let refused = folder.tasker(&["signal", &id, &long]);
    assert!(
        refused.code == 2 && refused.err.contains("1 to 200"),
        "{refused:?}"
    );
}

#[test]
fn settings_have_an_order_and_secrets_are_hidden() {
    let folder = Folder::new();
    folder.write("tasker.toml", "database = \"sqlite:toml.db\"\n");
    folder.write(".env", "OPENAI_API_KEY=sk-planted\n");
    let said = folder.with(&["config"], "", &[("DATABASE_URL", "sqlite:env.db")]);
    assert!(
        said.out.contains("sqlite:env.db") && said.out.contains("environment DATABASE_URL"),
        "{said:?}"
    );
    assert!(
        said.out.contains(".env OPENAI_API_KEY") && !said.out.contains("planted"),
        "{said:?}"
    );
    folder.ok(&["db", "migrate"]);
    assert!(folder.path().join("toml.db").exists());
    folder.ok(&["db", "migrate", "--database", "sqlite:flag.db"]);
    assert!(folder.path().join("flag.db").exists());
    folder.write("tasker.toml", "databse = \"x\"\n");
    let wrong = folder.tasker(&["config"]);
    assert!(
        wrong.code == 2 && wrong.err.contains("databse"),
        "{wrong:?}"
    );
}

#[test]
fn the_database_is_migrated_checked_and_tidied() {
    let folder = Folder::new();
    assert_eq!(folder.json(&["db", "migrate"])["migrated"], true);
    assert_eq!(folder.json(&["db", "migrate"])["migrated"], false);
    assert_eq!(folder.json(&["db", "check"])["violations"], json!([]));
    folder.ok(&["db", "vacuum"]);
}

#[test]
fn the_keystore_takes_values_from_standard_input() {
    let folder = Folder::new();
    let old = "00".repeat(32);
    let new = "11".repeat(32);
    let key = [("TASKER_MASTER_KEY", old.as_str())];
    let none = folder.with(&["keystore", "set", "K"], "v1", &[]);
    assert!(
        none.code == 1 && none.err.contains("TASKER_MASTER_KEY"),
        "{none:?}"
    );
    assert_eq!(folder.with(&["keystore", "set", "K"], "v1\n", &key).code, 0);
    assert_eq!(
        folder
            .with(
                &["keystore", "set", "O", "--namespace", "openai"],
                "v2",
                &key
            )
            .code,
        0
    );
    assert_eq!(folder.with(&["keystore", "get", "K"], "", &key).out, "v1");
    assert_eq!(
        folder.with(&["keystore", "list"], "", &key).out,
        "global/K\nopenai/O"
    );
    let both = [
        ("TASKER_MASTER_KEY", new.as_str()),
        ("TASKER_PREVIOUS_MASTER_KEYS", old.as_str()),
    ];
    assert!(
        folder
            .with(&["keystore", "rotate"], "", &both)
            .out
            .starts_with("2 sealed again")
    );
    let key = [("TASKER_MASTER_KEY", new.as_str())];
    assert_eq!(folder.with(&["keystore", "get", "K"], "", &key).out, "v1");
    assert_eq!(folder.with(&["keystore", "get", "none"], "", &key).code, 6);
    let deleted = folder.with(&["keystore", "delete", "K"], "", &key);
    assert!(
        deleted.code == 0 && deleted.out.contains("K is deleted"),
        "{deleted:?}"
    );
    let again = folder.with(&["keystore", "delete", "K", "--json"], "", &key);
    assert!(
        again.code == 6 && again.err.contains("keystore list"),
        "{again:?}"
    );
    assert_eq!(
        folder.tasker(&["keystore", "set", "K", "value"]).code,
        2,
        "no value in arguments"
    );
}

#[test]
fn a_private_service_needs_a_grant() {
    let folder = Folder::new();
    folder.write("tasks/reads.js", "/** @task reads */\nmodule.exports = async (input, { tools }) => await tools.keystore.getKey('global', 'K');\n");
    let key = "22".repeat(32);
    let key = [("TASKER_MASTER_KEY", key.as_str())];
    folder.with(&["keystore", "set", "K"], "v1", &key);
    folder.ok(&["publish", "--all"]);
    assert_eq!(folder.with(&["run", "reads", "--poll"], "", &key).code, 3);
    folder.write("tasker.toml", "[grants]\nreads = [\"keystore\"]\n");
    folder.ok(&["publish", "--all"]);
    let said = folder.with(&["run", "reads", "--poll"], "", &key);
    assert_eq!((said.code, said.out.as_str()), (0, "\"v1\""), "{said:?}");
}

#[test]
fn a_task_may_be_granted_some_methods_of_a_service_only() {
    let folder = Folder::new();
    let asks = "/** @task asks */\nmodule.exports = async (input, { tools }) => await tools.keystore[input.method](...input.args);\n";
    folder.write("tasks/asks.js", asks);
    let key = "22".repeat(32);
    let key = [("TASKER_MASTER_KEY", key.as_str())];
    folder.with(&["keystore", "set", "K"], "v1", &key);
    let ask = |method: &str, args: &[&str]| {
        let input = json!({ "method": method, "args": args }).to_string();
        folder.with(&["run", "asks", "-i", &input, "--poll"], "", &key)
    };
    for (toml, flags) in [
        ("[grants]\nasks = [\"keystore.hasKey\"]\n", &[][..]),
        ("", &["--grant", "keystore.hasKey"]),
    ] {
        folder.write("tasker.toml", toml);
        let publish: Vec<&str> = ["publish", "--all"].iter().chain(flags).copied().collect();
        folder.ok(&publish);
        let refused = ask("setKey", &["global", "K", "v2"]);
        assert!(
            refused.code == 3 && refused.err.contains("setKey") && refused.err.contains("granted"),
            "{refused:?}"
        );
        assert_eq!(ask("hasKey", &["global", "K"]).out, "true");
    }
    folder.write(
        "tasker.toml",
        "[grants]\nasks = [\"keystore\", \"keystore.hasKey\"]\n",
    );
    let both = folder.tasker(&["publish", "--all"]);
    assert!(both.code == 2 && both.err.contains("either"), "{both:?}");
    let wrong = folder.tasker(&["publish", "--all", "--grant", "keystore.get*"]);
    assert!(
        wrong.code == 2 && wrong.err.contains("gapi.drive.*"),
        "{wrong:?}"
    );
    folder.write("tasker.toml", "[grants]\nasked = [\"keystore\"]\n");
    let nobody = folder.tasker(&["publish", "--all"]);
    assert!(
        nobody.code == 0 && nobody.err.contains("asked"),
        "{nobody:?}"
    );
}

#[test]
fn schemas_types_and_completions_are_printed() {
    let folder = folder();
    let schema: Value = serde_json::from_str(&folder.ok(&["schema", "sum"])).unwrap();
    assert_eq!(schema["name"], "sum");
    let openapi: Value =
        serde_json::from_str(&folder.ok(&["schema", "sum", "--format", "openapi"])).unwrap();
    assert_eq!(openapi["openapi"], "3.0.0");
    assert!(
        folder
            .ok(&["schema", "sum", "--format", "openai"])
            .contains("\"sum\"")
    );
    let types = folder.ok(&["types"]);
    assert!(
        types.contains("\"sum\"") && types.contains("keystore"),
        "{types}"
    );
    folder.ok(&["types", "--out", "tasker.d.ts"]);
    assert!(folder.path().join("tasker.d.ts").exists());
    for shell in ["bash", "zsh", "fish"] {
        assert!(folder.ok(&["completions", shell]).contains("tasker"));
    }
}

#[test]
#[cfg(unix)]
fn ctrl_c_detaches_and_says_how_to_come_back() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;

    let folder = Folder::new();
    folder.write("tasks/sleeps.js", "/** @task sleeps */\nmodule.exports = async (input, { tools }) => { await tools.sleep(3600000); return 'awake'; };\n");
    folder.ok(&["publish", "--all"]);
    let mut child = folder
        .command(&["run", "sleeps", "--poll"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("sleep ") && !line.trim_end().ends_with("sleep") {
        line.clear();
        assert_ne!(
            stderr.read_line(&mut line).unwrap(),
            0,
            "it ended before it slept"
        );
    }
    let id = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    let back = rest
        .split("come back: tasker ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    let back: Vec<&str> = back.split(' ').collect();
    folder.wake_sleepers();
    assert_eq!(folder.ok(&back), "\"awake\"");
}
