//! What an operator gets wrong at three in the morning: each is said, with what to do, in JSON too, and with its exit code.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::kit::Folder;
use crate::kit::server::Server;

const SLOW: &str = "/** @task slow */\nmodule.exports = async (input, { tools }) => {\n  await tools.sleep(1500);\n  return 'awake';\n};\n";

const ASKS: &str = "/** @task asks */\nmodule.exports = async (input, { tools }) => {\n  try { await tools.openai.models.list(); } catch {}\n  return 'awake';\n};\n";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("tasks/slow.js", SLOW);
    folder.ok(&["publish", "--all"]);
    folder
}

#[test]
fn wrong_command_lines_say_what_is_wrong_as_text_and_in_json() {
    let folder = folder();
    folder.write("plain", "");
    folder.write("empty/readme.md", "");
    folder.write(
        "broken/one.js",
        "module.exports = async () => {\n  return 1 +\n};\n",
    );
    folder.write(
        "typed/two.ts",
        "export default function two(): number {\n  const x: number = ;\n}\n",
    );
    folder.write("bytes/three.js", "");
    std::fs::write(folder.path().join("bytes/three.js"), b"\xff\xfe").unwrap();
    folder.write("twice/a.js", "/** @task same */ module.exports = () => 1");
    folder.write("twice/b.js", "/** @task same */ module.exports = () => 2");
    folder.write(
        "lost/four.js",
        "import { x } from './x.js';\nexport default () => x;",
    );
    folder.write("large.json", &format!("\"{}\"", "x".repeat(5 << 20)));
    folder.write("services/mine/service.toml", "");
    let id = "018f0000-0000-7000-8000-000000000000";
    for (words, code, word) in [
        (&["run", "slow", "--input", "@large.json"][..], 2, "4194304"),
        (&["run", "slow", "--input", ""], 2, "--input"),
        (&["run", "slow", "--input", "@none.json"], 1, "none.json"),
        (&["run", "slo"], 6, "slow"),
        (&["task"], 2, "--task"),
        (&["runs", "--limit", "0"], 2, "limit"),
        (&["runs", "--before", "7"], 2, "tasker runs"),
        (&["status", "7"], 2, "tasker runs"),
        (&["status", id], 6, id),
        (&["logs", id, "--follow"], 6, id),
        (&["trace", id], 6, id),
        (&["cancel", id], 6, id),
        (&["signal", id, "go"], 6, id),
        (&["signal", id, "go", "{bad"], 2, "the payload"),
        (&["signal", id], 2, "NAME"),
        (&["unblock", id, "retry"], 6, id),
        (&["unblock", id, "supply", "{bad"], 2, "the result"),
        (&["schema", "slo"], 6, "slow"),
        (&["types", "--out", "no/such.d.ts"], 1, "no/such.d.ts"),
        (&["publish"], 2, "--all"),
        (&["publish", "--all", "--dir", "nowhere"], 1, "tasker init"),
        (&["publish", "--all", "--dir", "plain"], 1, "plain"),
        (&["publish", "--all", "--dir", "broken"], 1, "one.js:3:1"),
        (&["publish", "--all", "--dir", "typed"], 1, "two.ts:2:21"),
        (&["publish", "--all", "--dir", "bytes"], 1, "three.js"),
        (&["publish", "--all", "--dir", "twice"], 1, "b.js"),
        (&["publish", "--all", "--dir", "lost"], 1, "./x.js"),
        (&["init", "plain"], 1, "plain"),
        (&["init", "plain/below"], 1, "plain/below"),
        (&["service", "new", "../x"], 2, "../x"),
        (&["service", "list"], 2, "mine"),
        (&["keystore", "get", "K"], 1, "TASKER_MASTER_KEY"),
        (&["keystore", "set", "K"], 2, "standard input"),
        (&["tasks", "--database", ""], 2, "sqlite:FILE"),
        (&["tasks", "--database", "mysql:x"], 2, "postgres://"),
        (
            &["tasks", "--database", "postgres://h:x/d"],
            2,
            "postgres://user",
        ),
        (&["tasks", "--database", "sqlite::memory:"], 2, ":memory:"),
        (&["tasks", "--database", "sqlite:tasks"], 1, "tasks"),
        (&["tasks", "--database", "sqlite:large.json"], 1, "backup"),
        (&["serve", "--bind", "here"], 2, "127.0.0.1"),
        (&["completions", "cmd"], 2, "bash"),
        (&["nonsense"], 2, "nonsense"),
    ] {
        let said = folder.tasker(words);
        assert_eq!(said.code, code, "{words:?}: {said:?}");
        assert!(said.err.contains(word), "{word}: {said:?}");
        assert!(!said.err.contains("panicked"), "{said:?}");
        assert_eq!(said.out, "", "{words:?}: answers only");
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let said = folder.tasker(&words);
        let error: Value =
            serde_json::from_str(&said.err).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        assert_eq!(error["exitCode"], code, "{said:?}");
        assert!(error["error"].as_str().unwrap().contains(word), "{said:?}");
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{words:?}");
    }
    let empty = folder.tasker(&["publish", "--all", "--dir", "empty"]);
    assert!(
        empty.code == 0 && empty.err.contains("holds no tasks"),
        "{empty:?}"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_system_without_ca_certificates_is_told_what_is_missing() {
    let folder = folder();
    let nowhere = [("SSL_CERT_FILE", "/no/such.pem"), ("SSL_CERT_DIR", "/no")];
    let said = folder.with(&["tasks"], "", &nowhere);
    assert!(
        said.code == 1 && said.err.contains("ca-certificates"),
        "{said:?}"
    );
}

#[test]
fn every_command_answers_in_one_json_value() {
    let folder = folder();
    let id = folder.ok(&["run", "slow"]);
    let key = "44".repeat(32);
    let key = [("TASKER_MASTER_KEY", key.as_str())];
    for words in [
        &["init"][..],
        &["publish", "--all"],
        &["publish", "--list"],
        &["tasks"],
        &["task", "--list"],
        &["schema", "slow"],
        &["types"],
        &["run", "slow"],
        &["runs"],
        &["status", &id],
        &["trace", &id],
        &["signal", &id, "go"],
        &["cancel", &id],
        &["db", "migrate"],
        &["db", "check"],
        &["db", "vacuum"],
        &["keystore", "set", "K"],
        &["keystore", "get", "K"],
        &["keystore", "list"],
        &["keystore", "rotate"],
        &["keystore", "delete", "K"],
        &["service", "new", "mine"],
        &["service", "list"],
        &["config"],
        &["completions", "fish"],
    ] {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let said = folder.with(&words, "value-of-k", &key);
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
        let value: Result<Value, _> = serde_json::from_str(&said.out);
        assert!(value.is_ok(), "{words:?}: {said:?}");
        assert_eq!(said.err, "", "{words:?}: nothing but the answer");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = folder();
    for words in [
        &["completions", "bash"][..],
        &["--help"],
        &["types"],
        &["config"],
    ] {
        let mut child = folder
            .command(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && err.is_empty(),
            "{words:?}: {output:?}"
        );
    }
}

#[tokio::test]
async fn a_command_that_waits_gives_its_run_back_when_it_is_asked_to_end() {
    let folder = folder();
    folder.write("tasks/asks.js", ASKS);
    folder.ok(&["publish", "--all"]);
    // Whoever connects waits for ever.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let held = || -> i64 {
        let sql = "SELECT count(*) FROM stack_runs WHERE owner IS NOT NULL";
        folder.file().query_row(sql, [], |row| row.get(0)).unwrap()
    };
    for signal in ["-TERM", "-INT"] {
        let id = folder.ok(&["run", "asks"]);
        let mut child = folder
            .command(&["status", &id, "--poll"])
            .env("OPENAI_API_KEY", "sk-x")
            .env("OPENAI_BASE_URL", &url)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // The frame and its call.
        crate::kit::wait_until(|| held() == 2);
        let pid = child.id().to_string();
        let sent = std::process::Command::new("kill")
            .args([signal, &pid])
            .status();
        assert!(sent.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signal}");
        // A process that is killed keeps its runs until its lease, 30 s, has run out.
        assert_eq!(held(), 0, "{signal}: it kept something");
        // Without a key the call fails at once, and the task catches that.
        assert_eq!(folder.ok(&["status", &id, "--poll"]), "\"awake\"");
    }
}

#[test]
fn a_registry_file_that_cannot_be_written_is_said_and_leaves_nothing_behind() {
    let folder = folder();
    std::fs::create_dir(folder.path().join(".service-registry.json")).unwrap();
    let said = folder.tasker(&["serve", "--port", "0", "--services", "task-executor"]);
    assert!(
        said.code == 1 && said.err.contains(".service-registry.json"),
        "{said:?}"
    );
    let files = std::fs::read_dir(folder.path()).unwrap().flatten();
    let drafts: Vec<_> = files
        .map(|file| file.file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".service-registry.json."))
        .collect();
    assert_eq!(drafts, Vec::<String>::new());
    // Commands are not kept from their work by a file that is nonsense.
    std::fs::remove_dir(folder.path().join(".service-registry.json")).unwrap();
    folder.write(".service-registry.json", "nonsense");
    assert_eq!(folder.ok(&["run", "slow", "--poll"]), "\"awake\"");
}

#[tokio::test]
async fn a_signal_over_http_reaches_its_task() {
    let folder = folder();
    folder.write(
        "tasks/waits.js",
        "module.exports = async function waits(input, { signal }) { return [await signal('paid in full'), await signal('sent')]; };",
    );
    folder.ok(&["publish", "--all"]);
    let server = Server::start(&folder, &["--services", "task-executor"], &[]);
    let send = |path: String, body: String| {
        let server = &server;
        async move { server.send("task-executor", &path, &body).await }
    };
    let submitted = send("/execute".into(), r#"{"taskName":"waits"}"#.into()).await;
    let id = submitted.1["data"]["taskRunId"].as_str().unwrap();
    let signals = format!("/runs/{id}/signals");
    for (name, body, refusal) in [
        ("a%00", "1".to_owned(), 400),
        (&*"x".repeat(201), "1".to_owned(), 400),
        ("paid%20in%20full", "not json".to_owned(), 400),
        (
            "paid%20in%20full",
            format!("{}{}", "[".repeat(101), "]".repeat(101)),
            413,
        ),
    ] {
        let (status, said) = send(format!("{signals}/{name}"), body).await;
        assert_eq!(status, refusal, "{name}: {said}");
    }
    let (status, said) = send(
        format!("{signals}/paid%20in%20full"),
        r#"{"by":"Ada"}"#.into(),
    )
    .await;
    assert_eq!(
        (status, &said["data"]),
        (200, &json!({ "taskRunId": id, "signal": "paid in full" })),
        "{said}"
    );
    assert_eq!(send(format!("{signals}/sent"), String::new()).await.0, 200);
    let result = folder.ok(&["status", id, "--poll"]);
    assert_eq!(result, r#"[{"by":"Ada"},null]"#);
    let (status, said) = send(format!("{signals}/sent"), String::new()).await;
    assert_eq!(
        (status, &said["errorDetails"]["code"]),
        (409, &json!("RUN_ENDED")),
        "{said}"
    );
}

#[tokio::test]
async fn every_refusal_over_http_is_the_envelope() {
    let folder = folder();
    let server = Server::start(&folder, &["--services", "task-executor"], &[]);
    let client = &server.client;
    for (method, path, body, status) in [
        ("GET", "/runs/%ff/events", "", 400),
        ("GET", "/status?id=%00", "", 400),
        ("GET", "/status?status=done", "", 400),
        ("GET", "/status?limit=%ff", "", 400),
        ("GET", "/..%2f..%2fetc", "", 404),
        ("TRACE", "/list", "", 405),
        ("PUT", "/execute", "", 405),
        ("POST", "/execute", "", 400),
        ("POST", "/execute", "not json", 400),
        ("POST", "/execute", r#"{"taskName":7}"#, 400),
        ("POST", "/execute", r#"["slow",{}]"#, 400),
        ("POST", "/execute?wait=301", r#"{"taskName":"slow"}"#, 400),
        ("POST", "/runs/7/signals/go", "", 400),
        (
            "POST",
            "/runs/018f0000-0000-7000-8000-000000000000/signals/go",
            "",
            404,
        ),
        ("GET", "/runs/7/signals/go", "", 405),
    ] {
        let method = method.parse().unwrap();
        let request = client.request(method, server.url("task-executor", path));
        let answer = request.body(body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        let text = answer.text().await.unwrap();
        let said: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"));
        assert!(
            said["success"] == json!(false) && said["errorDetails"]["status"] == status,
            "{path}: {said}"
        );
    }
    let deep = format!(
        r#"{{"taskName":"slow","input":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let (status, said) = server.send("task-executor", "/execute", &deep).await;
    assert_eq!(status, 413, "{said}");
    assert_eq!(server.get("task-executor", "/health").await.0.as_u16(), 200);
}
