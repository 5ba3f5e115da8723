//! Who is let in, how long one may take, and what is written about it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::kit::Folder;
use crate::kit::server::Server;

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write(
        "tasks/one.js",
        "/** @task one */\nmodule.exports = () => 1;\n",
    );
    folder.ok(&["publish", "--all"]);
    folder
}

#[tokio::test]
async fn pages_of_listed_origins_are_answered_and_of_no_others() {
    let folder = folder();
    let origins = "https://app.example.com,http://localhost:5173";
    let open = Server::start(
        &folder,
        &["--services", "task-executor", "--cors-origins", origins],
        &[],
    );
    let closed = Server::start(&folder, &["--services", "task-executor"], &[]);
    let with_token = Server::start(
        &folder,
        &["--services", "task-executor"],
        &[
            ("TASKER_CORS_ORIGINS", "https://app.example.com"),
            ("TASKER_TOKEN", "t0ken"),
        ],
    );
    let ask = async |server: &Server, origin: &str, preflight: bool| {
        let method = if preflight {
            reqwest::Method::OPTIONS
        } else {
            reqwest::Method::GET
        };
        let mut request = server
            .client
            .request(method, server.url("task-executor", "/list"))
            .header("origin", origin);
        if preflight {
            request = request
                .header("access-control-request-method", "GET")
                .header("access-control-request-headers", "authorization");
        }
        let answer = request.send().await.unwrap();
        let allowed = answer
            .headers()
            .get("access-control-allow-origin")
            .map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), allowed)
    };
    for origin in ["https://app.example.com", "http://localhost:5173"] {
        assert_eq!(
            ask(&open, origin, false).await,
            (200, Some(origin.to_owned()))
        );
        assert_eq!(
            ask(&open, origin, true).await,
            (200, Some(origin.to_owned()))
        );
    }
    for origin in [
        "https://evil.example",
        "https://app.example.com.evil.example",
        "null",
    ] {
        assert_eq!(ask(&open, origin, false).await, (403, None), "{origin}");
        assert_eq!(ask(&open, origin, true).await.1, None, "{origin}");
        assert_eq!(ask(&closed, origin, false).await, (403, None), "{origin}");
    }
    assert_eq!(
        ask(&closed, "https://app.example.com", true).await,
        (403, None),
        "CORS is off unless origins are listed"
    );
    let app = "https://app.example.com";
    assert_eq!(
        ask(&with_token, app, true).await,
        (200, Some(app.to_owned())),
        "a preflight carries no token"
    );
    assert_eq!(
        ask(&with_token, app, false).await,
        (401, Some(app.to_owned())),
        "the request itself needs it"
    );
    for wrong in ["*", "app.example.com", "https://app.example.com/path"] {
        let said = folder.tasker(&["serve", "--cors-origins", wrong]);
        assert!(
            said.code == 2 && said.err.contains("https://app.example.com"),
            "{said:?}"
        );
    }
}

fn connect(server: &Server) -> TcpStream {
    let url = server.url("task-executor", "");
    let stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_mins(2)))
        .unwrap();
    stream
}

/// What comes until the other side closes.
fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn slow_senders_and_idle_connections_are_closed() {
    let folder = folder();
    // More than a busy machine lies between two lines of this test.
    let limits = [
        ("TASKER_HEADER_TIMEOUT_SECS", "5"),
        ("TASKER_BODY_TIMEOUT_SECS", "5"),
    ];
    let server = Server::start(&folder, &["--services", "task-executor"], &limits);
    let begun = Instant::now();
    let mut headers = connect(&server);
    headers
        .write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-slow")
        .unwrap();
    let mut body = connect(&server);
    body.write_all(
        b"POST /execute HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{\"task",
    )
    .unwrap();
    let mut idle = connect(&server);
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .unwrap();
    let silent = connect(&server);
    let idle = rest(idle);
    assert!(idle.starts_with("HTTP/1.1 200"), "{idle}");
    assert_eq!(idle.matches("HTTP/1.1").count(), 1, "{idle}");
    let body = rest(body);
    assert!(
        body.starts_with("HTTP/1.1 408") && body.contains("VALIDATION_ERROR"),
        "{body}"
    );
    assert!(!rest(headers).contains("200"));
    assert_eq!(rest(silent), "");
    // The default for bodies is 30 s.
    assert!(
        begun.elapsed() < Duration::from_secs(28),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(server.get("task-executor", "/health").await.0.as_u16(), 200);
}

#[tokio::test]
async fn no_more_connections_than_allowed_are_served_at_one_time() {
    let folder = folder();
    let limits = [
        ("TASKER_MAX_CONNECTIONS", "2"),
        ("TASKER_HEADER_TIMEOUT_SECS", "60"),
    ];
    let server = Server::start(&folder, &["--services", "task-executor"], &limits);
    let held = [connect(&server), connect(&server)];
    let mut waiting = connect(&server);
    waiting
        .write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    waiting
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut byte = [0];
    assert!(waiting.read(&mut byte).is_err(), "the third waits");
    drop(held);
    waiting
        .set_read_timeout(Some(Duration::from_mins(2)))
        .unwrap();
    assert!(
        rest(waiting).starts_with("HTTP/1.1 200"),
        "and is served when there is room"
    );
}

#[tokio::test]
async fn requests_are_counted_named_and_followed() {
    let folder = folder();
    let server = Server::start(&folder, &["--services", "task-executor", "--debug"], &[]);
    let request = server
        .client
        .post(server.url("task-executor", "/execute?wait=240"));
    let request = request
        .header("x-request-id", "req-1")
        .header("x-correlation-id", "corr-1");
    let answer = request.body(r#"{"taskName":"one"}"#).send().await.unwrap();
    assert_eq!(
        (
            &answer.headers()["x-request-id"],
            &answer.headers()["x-correlation-id"]
        ),
        (&"req-1".parse().unwrap(), &"corr-1".parse().unwrap())
    );
    let said: Value = answer.json().await.unwrap();
    assert_eq!(said["data"]["correlationId"], "corr-1", "{said}");
    assert!(
        server.log().contains("req-1") && server.log().contains("corr-1"),
        "{}",
        server.log()
    );
    server.get("task-executor", "/status?id=x").await;
    let answer = server
        .client
        .get(server.url("task-executor", "/metrics"))
        .send()
        .await
        .unwrap();
    assert!(
        answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    let text = answer.text().await.unwrap();
    for line in [
        r#"tasker_http_requests_total{service="task-executor",method="POST",path="/execute",status="200"} 1"#,
        r#"tasker_http_requests_total{service="task-executor",method="GET",path="/status",status="400"} 1"#,
        "tasker_runs_submitted_total 1",
        "tasker_http_connections",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[tokio::test]
async fn secrets_do_not_come_into_the_log() {
    let folder = folder();
    folder.write(".env", "SUPABASE_SERVICE_ROLE_KEY=planted-role-key\n");
    let variables = [
        ("TASKER_TOKEN", "planted-token"),
        ("OPENAI_API_KEY", "planted-openai"),
        ("SUPABASE_URL", "http://127.0.0.1:9"),
        ("RUST_LOG", "trace"),
        ("LOG_FORMAT", "json"),
    ];
    let server = Server::start(&folder, &[], &variables);
    let ask = async |service: &str, body: Value| {
        let request = server
            .client
            .post(server.url(service, "/"))
            .bearer_auth("planted-token");
        request
            .body(body.to_string())
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    let mut said = ask(
        "supabase",
        json!({"chain": [{"property": "from", "args": ["t"]}, {"property": "select"}]}),
    )
    .await;
    said += &ask("task-executor", json!({"method": "planted-token"})).await;
    said += &server
        .client
        .get(server.url("task-executor", "/list"))
        .bearer_auth("planted-other-token")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let log = server.log();
    assert!(
        log.lines().count() > 20
            && log
                .lines()
                .all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "{log}"
    );
    assert!(
        !log.contains("planted-"),
        "{}",
        log.lines().find(|line| line.contains("planted-")).unwrap()
    );
    assert!(
        !said.contains("planted-role-key") && !said.contains("planted-openai"),
        "{said}"
    );
}

/// A service of the folder that writes what it is asked into its log, as it came and in JSON.
const TALKS: &str = r#"
import { createServer } from "node:http";
createServer(async (request, response) => {
  let text = "";
  for await (const piece of request) text += piece;
  if (request.method === "POST") console.log("asked", text, JSON.stringify({ asked: text }));
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ success: true, data: "heard" }));
}).listen(Number(process.env.PORT), "127.0.0.1");
"#;

/// Reads a key that it was granted and tells it to a service that logs.
const LEAKS: &str = "/** @task leaks */\nmodule.exports = async (input, { tools }) => {\n  const value = await tools.keystore.getKey('global', input.key);\n  return await tools.talks.say('seen', value);\n};\n";

#[tokio::test]
async fn a_key_that_is_set_while_the_server_runs_does_not_come_into_the_log() {
    let master = "66".repeat(32);
    for format in ["text", "json"] {
        let folder = folder();
        folder.write("tasks/leaks.js", LEAKS);
        folder.write("tasker.toml", "[grants]\nleaks = [\"keystore.getKey\"]\n");
        folder.write(
            "services/talks/service.toml",
            "command = ['node', 'index.mjs']\nhealth = '/'\n",
        );
        folder.write("services/talks/index.mjs", TALKS);
        folder.ok(&["publish", "--all"]);
        let variables = [
            ("PATH", &*crate::path()),
            ("TASKER_TOKEN", "t0ken-of-this"),
            ("TASKER_MASTER_KEY", &master),
            ("LOG_FORMAT", format),
            ("LOG_LEVEL", "debug"),
        ];
        let server = Server::start(&folder, &[], &variables);
        let ask = async |service: &str, path: &str, body: Value| {
            let request = server.client.post(server.url(service, path));
            let request = request.bearer_auth("t0ken-of-this");
            let answer = request.body(body.to_string()).send().await.unwrap();
            answer.json::<Value>().await.unwrap()
        };
        // One key over HTTP, and one by the command line of another process.
        let value = "planted \"one\" & more";
        let set = json!({"method": "setKey", "args": ["global", "ONE", value]});
        assert_eq!(ask("keystore", "/", set).await["data"], true);
        let by_command = folder.with(&["keystore", "set", "TWO"], "planted-two-value", &variables);
        assert_eq!(by_command.code, 0, "{by_command:?}");
        for key in ["ONE", "TWO"] {
            let run = json!({"taskName": "leaks", "input": {"key": key}});
            let said = ask("task-executor", "/execute?wait=240", run).await;
            assert_eq!(said["data"]["result"], "heard", "{said}");
        }
        crate::kit::wait_until(|| server.log().matches("seen").count() >= 4);
        let log = server.log();
        let leak = log.lines().find(|line| line.contains("planted"));
        assert_eq!(leak, None, "{format}");
        assert!(log.matches("[redacted]").count() >= 4, "{log}");
        if format == "json" {
            let wrong = log
                .lines()
                .find(|line| serde_json::from_str::<Value>(line).is_err());
            assert_eq!(wrong, None);
        }
    }
}

#[test]
fn wrong_settings_are_said_with_their_source_and_what_to_do() {
    let folder = folder();
    for (variables, words) in [
        (&[("PORT", "abc")][..], &["PORT", "65535"][..]),
        (&[("PORT", "65535")], &["PORT", "room"]),
        (&[("TASKER_BIND", "here")], &["TASKER_BIND", "127.0.0.1"]),
        (
            &[("TASKER_HEADER_TIMEOUT_SECS", "0")],
            &["TASKER_HEADER_TIMEOUT_SECS", "3600"],
        ),
        (&[("LOG_LEVEL", "=loud=")], &["LOG_LEVEL", "debug"]),
        (&[("LOG_FORMAT", "xml")], &["LOG_FORMAT", "json"]),
        (
            &[("TASKER_MASTER_KEY", "short-planted")],
            &["TASKER_MASTER_KEY"],
        ),
        (
            &[("DATABASE_URL", "mysql://u:planted@h/d")],
            &["DATABASE_URL", "postgres://"],
        ),
    ] {
        let said = folder.with(&["serve"], "", variables);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(
            words.iter().all(|word| said.err.contains(word)) && !said.err.contains("planted"),
            "{words:?}: {said:?}"
        );
        let said = folder.with(&["serve", "--json"], "", variables);
        let error: Value = serde_json::from_str(&said.err).unwrap();
        assert_eq!(error["exitCode"], 2, "{said:?}");
    }
    // The database.
    let nowhere = folder.tasker(&["tasks", "--database", "sqlite:no/such/folder/x.db"]);
    assert!(
        nowhere.code == 1 && nowhere.err.contains("no/such/folder"),
        "{nowhere:?}"
    );
    let nobody = folder.tasker(&["tasks", "--database", "postgres://u:planted@127.0.0.1:9/d"]);
    assert!(
        nobody.code == 1 && nobody.err.contains("127.0.0.1") && !nobody.err.contains("planted"),
        "{nobody:?}"
    );
    folder.write(
        "text.db",
        "this is no database, whatever its name says, and it is long enough to be looked at\n",
    );
    let text = folder.tasker(&["tasks", "--database", "sqlite:text.db"]);
    assert!(text.code == 1 && text.err.contains("text.db"), "{text:?}");
    // The command line.
    for (words, word) in [
        (&["nope"][..], "nope"),
        (&["run", "one", "--input"], "--input"),
        (&["status", "7"], "7"),
        (&["serve", "--port", "70000"], "70000"),
        (&["runs", "--status", "done"], "completed"),
    ] {
        let said = folder.tasker(words);
        assert!(said.code == 2 && said.err.contains(word), "{said:?}");
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let said = folder.tasker(&words);
        let error: Value =
            serde_json::from_str(&said.err).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        assert!(error["error"].as_str().unwrap().contains(word), "{said:?}");
    }
    folder.write("tasker.toml", "[serve\n");
    let toml = folder.tasker(&["config"]);
    assert!(
        toml.code == 2 && toml.err.contains("tasker.toml"),
        "{toml:?}"
    );
    folder.write("tasker.toml", "");
    folder.write(".env", "= no name\n");
    let env = folder.tasker(&["config"]);
    assert!(env.code == 2 && env.err.contains(".env"), "{env:?}");
}
