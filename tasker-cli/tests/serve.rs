//! `tasker serve` with the built binary, over HTTP on loopback.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod kit;

use kit::Folder;
use kit::server::Server;
use reqwest::StatusCode;
use serde_json::{Value, json};

const SUM: &str = "/**\n * Adds.\n * @task sum\n * @param {object} input - Numbers\n * @param {number} input.a - One\n */\nmodule.exports = async function sum(input, context) {\n  console.log('adding');\n  const b = await context.tools.tasks.execute('two', {});\n  return { total: input.a + b };\n};\n";
const TWO: &str = "/** @task two */\nmodule.exports = async () => 2;\n";
const FAILS: &str =
    "/** @task fails */\nmodule.exports = async () => { throw new TypeError('no luck'); };\n";
const SLEEPS: &str = "/** @task sleeps */\nmodule.exports = async (input, { tools }) => { await tools.sleep(input.ms); return 'awake'; };\n";

fn folder() -> Folder {
    let folder = Folder::new();
    for (name, text) in [
        ("sum", SUM),
        ("two", TWO),
        ("fails", FAILS),
        ("sleeps", SLEEPS),
    ] {
        folder.write(&format!("tasks/{name}.js"), text);
    }
    folder.ok(&["publish", "--all"]);
    folder
}

#[tokio::test]
async fn tasks_are_submitted_waited_for_and_looked_at() {
    let folder = folder();
    let server = Server::start(&folder, &["--services", "task-executor"], &[]);
    let executor = "task-executor";

    let (status, said) = server
        .post(
            executor,
            "/execute?wait=240",
            &json!({"taskName": "sum", "input": {"a": 40}}),
        )
        .await;
    assert_eq!(
        (status, &said["success"], &said["data"]["result"]),
        (StatusCode::OK, &json!(true), &json!({"total": 42})),
        "{said}"
    );
    assert!(
        said["metadata"]["duration"].is_u64() && said["metadata"]["timestamp"].is_string(),
        "{said}"
    );
    let id = said["data"]["taskRunId"].as_str().unwrap().to_owned();

    let (status, said) = server
        .post(
            executor,
            "/execute",
            &json!({"task_identifier": "fails", "input": {}}),
        )
        .await;
    // It may have begun before it was looked at.
    let word = said["data"]["status"].as_str().unwrap();
    assert!(
        status == StatusCode::ACCEPTED && ["queued", "processing", "failed"].contains(&word),
        "{said}"
    );
    let failed = said["data"]["taskRunId"].as_str().unwrap();
    let (_, said) = server
        .post(
            executor,
            "/execute?wait=true",
            &json!({"taskName": "fails"}),
        )
        .await;
    assert_eq!(said["data"]["failure"]["name"], "TypeError", "{said}");

    let (_, said) = server.get(executor, &format!("/status?id={id}")).await;
    assert_eq!(
        (&said["data"]["status"], &said["data"]["task"]),
        (&json!("completed"), &json!("sum"))
    );
    let (_, said) = server
        .get(executor, &format!("/logs?taskRunId={id}&limit=1"))
        .await;
    assert_eq!(said["data"]["logs"][0]["message"], "adding", "{said}");
    let (_, rest) = server
        .get(
            executor,
            &format!("/logs?id={id}&after={}", said["data"]["next"]),
        )
        .await;
    assert_eq!(rest["data"]["logs"], json!([]));
    let (_, said) = server.get(executor, "/status?limit=1").await;
    assert!(said["data"]["next"].is_string(), "{said}");

    let (_, said) = server.get(executor, "/list?limit=3").await;
    let names: Vec<&str> = said["data"]["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        (names, &said["data"]["next"], &said["data"]["count"]),
        (vec!["fails", "sleeps", "sum"], &json!("sum"), &json!(4))
    );
    let (_, said) = server.get(executor, "/list?after=sum").await;
    assert_eq!(
        (&said["data"]["tasks"][0]["name"], &said["data"]["next"]),
        (&json!("two"), &Value::Null)
    );
    let (_, said) = server.get(executor, "/schema?name=sum&format=openai").await;
    assert_eq!(said["data"]["name"], "sum");
    let (status, said) = server.get(executor, "/health").await;
    assert_eq!(
        (status, &said["data"]["status"]),
        (StatusCode::OK, &json!("healthy"))
    );

    let events = server
        .client
        .get(server.url(executor, &format!("/runs/{failed}/events")))
        .send()
        .await
        .unwrap();
    let text = events.text().await.unwrap();
    assert!(
        text.contains("event: status") && text.contains("event: end") && text.contains("TypeError"),
        "{text}"
    );
}

#[tokio::test]
async fn wrong_requests_are_answered_in_the_envelope_with_their_status() {
    let folder = folder();
    let server = Server::start(&folder, &["--services", "task-executor"], &[]);
    let kind = |said: &Value| said["errorDetails"]["type"].as_str().unwrap().to_owned();
    for (path, body, status, word) in [
        (
            "/execute",
            json!({"taskName": "summ"}),
            404,
            "NOT_FOUND_ERROR",
        ),
        ("/execute", json!({"input": {}}), 400, "VALIDATION_ERROR"),
        ("/execute", json!([]), 400, "VALIDATION_ERROR"),
        (
            "/execute?wait=x",
            json!({"taskName": "two"}),
            400,
            "VALIDATION_ERROR",
        ),
        (
            "/execute",
            json!({"taskName": "sum", "input": {"a": "x"}, "validate": true}),
            400,
            "VALIDATION_ERROR",
        ),
        ("/nowhere", json!({}), 404, "NOT_FOUND_ERROR"),
        ("/list", json!({}), 405, "VALIDATION_ERROR"),
    ] {
        let (said_status, said) = server.post("task-executor", path, &body).await;
        assert_eq!(
            (said_status.as_u16(), kind(&said).as_str(), &said["success"]),
            (status, word, &json!(false)),
            "{path} {body}: {said}"
        );
        assert!(said["metadata"]["requestId"].is_string());
    }
    for path in [
        "/status?id=7",
        "/logs",
        "/logs?id=x",
        "/schema",
        "/list?limit=0",
        "/runs/7/events",
    ] {
        let (status, said) = server.get("task-executor", path).await;
        assert_eq!(
            (status.as_u16(), kind(&said).as_str()),
            (400, "VALIDATION_ERROR"),
            "{path}: {said}"
        );
    }
    let big = "x".repeat((4 << 20) + (65 << 10));
    let (status, said) = server
        .post(
            "task-executor",
            "/execute",
            &json!({"taskName": "two", "input": big}),
        )
        .await;
    assert_eq!(status.as_u16(), 413, "{said}");
    let answer = server
        .client
        .get(server.url("task-executor", "/list"))
        .header("x-request-id", "mine-1")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["x-request-id"], "mine-1");
    assert_eq!(
        answer.json::<Value>().await.unwrap()["metadata"]["requestId"],
        "mine-1"
    );
    let page = server
        .client
        .get(server.url("task-executor", "/list"))
        .header("origin", "http://evil.example")
        .send()
        .await
        .unwrap();
    assert_eq!(page.status().as_u16(), 403);
    let renamed = server
        .client
        .get(server.url("task-executor", "/list"))
        .header("host", "evil.example")
        .send()
        .await
        .unwrap();
    assert_eq!(renamed.status().as_u16(), 403);
}

#[tokio::test]
async fn the_executor_pauses_and_any_instance_resumes() {
    let code = "module.exports = async function execute(input, { tools }) {\n  console.log('asking');\n  let found;\n  try { found = await tools.websearch.search(input.q); } catch (error) { return error.type + ': ' + error.message; }\n  const [a, b] = await Promise.all([tools.tasks.execute('two', {}), __callHostTool__('openai', 'x.y', [1])]);\n  return { found, a, b };\n};";
    let folders = (folder(), folder());
    let token = [("TASKER_TOKEN", "t0ken")];
    let first = Server::start(&folders.0, &["--services", "executor"], &token);
    let second = Server::start(&folders.1, &["--services", "deno-executor"], &token);
    let ask = async |server: &Server, path: &str, body: &Value| {
        let request = server
            .client
            .post(server.url("deno-executor", path))
            .bearer_auth("t0ken");
        let answer = request.body(body.to_string()).send().await.unwrap();
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap(),
        )
    };
    let (_, said) = ask(&first, "/", &json!({"taskCode": code, "input": {"q": "x"}})).await;
    let data = &said["data"];
    assert_eq!(
        (
            &data["status"],
            &data["suspensionData"]["serviceName"],
            &data["suspensionData"]["args"]
        ),
        (&json!("paused"), &json!("websearch"), &json!(["x"])),
        "{said}"
    );
    assert_eq!(data["logs"][0]["message"], "asking");
    let state = data["vmState"].clone();

    let (_, said) = ask(
        &second,
        "/resume",
        &json!({"taskCode": code, "vmState": state, "externalResult": [1]}),
    )
    .await;
    let data = &said["data"];
    let calls = data["suspensionData"]["calls"].as_array().unwrap();
    assert_eq!((calls.len(), &data["logs"]), (2, &json!([])), "{said}");
    let answers =
        json!([{"seq": calls[1]["seq"], "result": "b"}, {"seq": calls[0]["seq"], "result": null}]);
    let (_, said) = ask(
        &first,
        "/resume",
        &json!({"taskCode": code, "vmState": data["vmState"], "externalResults": answers}),
    )
    .await;
    assert_eq!(
        said["data"]["result"],
        json!({"found": [1], "a": null, "b": "b"}),
        "{said}"
    );

    let error = json!({"message": "gone", "type": "NOT_FOUND_ERROR"});
    let (_, said) = ask(
        &first,
        "/resume",
        &json!({"taskCode": code, "vmState": state, "externalError": error}),
    )
    .await;
    assert_eq!(
        said["data"]["result"], "NOT_FOUND_ERROR: gone",
        "the task catches it: {said}"
    );
    let (status, said) = ask(
        &first,
        "/resume",
        &json!({"taskCode": "module.exports = () => 2;", "vmState": state}),
    )
    .await;
    assert_eq!(status, 409, "{said}");
    let mut forged = state.clone();
    forged["state"] = json!(
        state["state"]
            .as_str()
            .unwrap()
            .replace("\"q\":\"x\"", "\"q\":\"y\"")
    );
    assert_ne!(forged, state);
    let (status, said) = ask(
        &first,
        "/resume",
        &json!({"taskCode": code, "vmState": forged}),
    )
    .await;
    assert_eq!(status, 403, "{said}");
    let (status, said) = ask(&first, "/", &json!({"taskCode": "module.exports = ("})).await;
    assert_eq!(status, 400, "{said}");
    let (_, said) = ask(
        &first,
        "/",
        &json!({"taskCode": "module.exports = () => { throw new RangeError('x') }"}),
    )
    .await;
    assert_eq!(
        (&said["data"]["status"], &said["data"]["failure"]["name"]),
        (&json!("failed"), &json!("RangeError")),
        "{said}"
    );
    assert_eq!(first.get("deno-executor", "/health").await.0.as_u16(), 200);
}

#[tokio::test]
async fn one_idempotency_key_is_one_run() {
    let folder = folder();
    let server = Server::start(&folder, &["--services", "task-executor"], &[]);
    let submit = async |body: Value| {
        let request = server
            .client
            .post(server.url("task-executor", "/execute"))
            .header("idempotency-key", "k1");
        let answer = request.body(body.to_string()).send().await.unwrap();
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap()["data"]["taskRunId"].clone(),
        )
    };
    let first = submit(json!({"taskName": "two"})).await;
    assert_eq!(first.0, 202);
    assert_eq!(submit(json!({"taskName": "two"})).await, first);
    assert_eq!(submit(json!({"taskName": "two", "input": 1})).await.0, 409);
}

#[tokio::test]
async fn a_nested_run_is_finished_by_posts_alone() {
    let folder = folder();
    let server = Server::start(
        &folder,
        &[
            "--drive",
            "post",
            "--services",
            "task-executor,simple-stack-processor",
        ],
        &[],
    );
    let processor = "simple-stack-processor";
    let (_, said) = server
        .post(
            "task-executor",
            "/execute",
            &json!({"taskName": "sum", "input": {"a": 1}}),
        )
        .await;
    let id = said["data"]["taskRunId"].as_str().unwrap().to_owned();
    let root = folder.json(&["trace", &id])["root"]["id"].clone();
    // By its id first, then what is next until nothing is.
    let (status, said) = server
        .post(processor, "/", &json!({"stackRunId": root}))
        .await;
    assert_eq!(
        (
            status.as_u16(),
            &said["data"]["processed"],
            &said["data"]["kind"]
        ),
        (200, &json!(true), &json!("frame")),
        "{said}"
    );
    let (_, said) = server
        .get("task-executor", &format!("/status?id={id}"))
        .await;
    assert_eq!(
        said["data"]["result"],
        Value::Null,
        "one POST is one step: {said}"
    );
    let mut steps = 0;
    loop {
        let (_, said) = server
            .post(processor, "/", &json!({"trigger": "process-next"}))
            .await;
        if said["data"]["processed"] == false {
            assert_eq!(said["data"]["reason"], "no_pending", "{said}");
            break;
        }
        steps += 1;
        assert!(steps < 20, "{said}");
    }
    assert!(
        steps >= 2,
        "the nested frame and the root again, not {steps}"
    );
    let (_, said) = server
        .get("task-executor", &format!("/status?id={id}"))
        .await;
    assert_eq!(said["data"]["result"], json!({"total": 3}), "{said}");
    let (status, said) = server.post(processor, "/", &json!({"stackRunId": 4})).await;
    assert_eq!(
        (status.as_u16(), &said["errorDetails"]["type"]),
        (400, &json!("VALIDATION_ERROR")),
        "{said}"
    );
    assert!(
        said["error"].as_str().unwrap().contains("not numbers"),
        "{said}"
    );
    assert_eq!(
        server
            .post(processor, "/", &json!({"trigger": "x"}))
            .await
            .0
            .as_u16(),
        400
    );
    assert_eq!(server.get(processor, "/health").await.0.as_u16(), 200);
    assert_eq!(
        folder.ok(&["run", "two", "--poll"]),
        "2",
        "a server that waits for POSTs does not do a command's work"
    );
}

#[tokio::test]
async fn with_a_token_nothing_is_answered_without_it_and_services_take_three_forms() {
    let folder = folder();
    let key = "33".repeat(32);
    let variables = [
        ("TASKER_TOKEN", "t0ken"),
        ("TASKER_MASTER_KEY", key.as_str()),
    ];
    let server = Server::start(&folder, &[], &variables);
    assert_eq!(server.get("task-executor", "/list").await.0.as_u16(), 401);
    assert_eq!(server.get("keystore", "/health").await.0.as_u16(), 200);
    let ask = async |body: Value| {
        let request = server
            .client
            .post(server.url("keystore", "/"))
            .bearer_auth("t0ken")
            .body(body.to_string());
        let answer = request.send().await.unwrap();
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap(),
        )
    };
    assert_eq!(
        server
            .post(
                "keystore",
                "/",
                &json!({"method": "getKey", "args": ["global", "K"]})
            )
            .await
            .0
            .as_u16(),
        401
    );
    let (status, said) =
        ask(json!({"action": "setKey", "namespace": "global", "key": "K", "value": "v"})).await;
    assert_eq!((status, &said["data"]), (200, &json!(true)), "{said}");
    assert_eq!(
        ask(json!({"method": "getKey", "args": ["global", "K"]}))
            .await
            .1["data"],
        "v"
    );
    assert_eq!(
        ask(json!({"chain": [{"property": "getKey", "args": ["global", "K"]}]}))
            .await
            .1["data"],
        "v"
    );
    let (status, said) = ask(json!({"nothing": 1})).await;
    assert_eq!(
        (status, &said["errorDetails"]["type"]),
        (400, &json!("VALIDATION_ERROR")),
        "{said}"
    );
}

#[tokio::test]
async fn a_signal_drains_and_nothing_is_lost() {
    let folder = folder();
    let mut server = Server::start(&folder, &["--services", "task-executor"], &[]);
    let registry = folder.path().join(".service-registry.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(&registry).unwrap()).unwrap();
    assert_eq!(file["services"][0]["name"], "task-executor");
    // A waiting command leaves the work to the server.
    assert_eq!(
        folder.ok(&["run", "sum", "-i", r#"{"a":5}"#, "--poll"]),
        r#"{"total":7}"#
    );
    let (_, said) = server
        .post(
            "task-executor",
            "/execute",
            &json!({"taskName": "sleeps", "input": {"ms": 3_600_000}}),
        )
        .await;
    let id = said["data"]["taskRunId"].as_str().unwrap().to_owned();
    folder.sleeps(&id);
    // On another database it is not the server's.
    let other = ["--database", "sqlite:other.db"];
    folder.ok(&["publish", "--all", other[0], other[1]]);
    assert_eq!(
        folder.ok(&["run", "two", "--poll", other[0], other[1]]),
        "2"
    );
    server.signal("-TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(!registry.exists(), "the registry goes with its server");
    assert_ne!(
        folder.json(&["status", &id])["status"],
        "completed",
        "it was in the server's hands"
    );
    folder.wake_sleepers();
    assert_eq!(
        folder.ok(&["status", &id, "--poll"]),
        "\"awake\"",
        "another process goes on"
    );
}

#[tokio::test]
async fn a_killed_server_leaves_its_runs_to_the_next_command() {
    let folder = folder();
    let lease = [("TASKER_LEASE_MS", "2000")];
    let mut server = Server::start(&folder, &["--services", "task-executor"], &lease);
    let (_, said) = server
        .post(
            "task-executor",
            "/execute",
            &json!({"taskName": "sleeps", "input": {"ms": 3_600_000}}),
        )
        .await;
    let id = said["data"]["taskRunId"].as_str().unwrap().to_owned();
    folder.sleeps(&id);
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    assert!(
        folder.path().join(".service-registry.json").exists(),
        "a killed server cannot clean up"
    );
    assert_eq!(
        folder.ok(&["run", "two", "--poll"]),
        "2",
        "a stale registry file fools nobody"
    );
    assert_ne!(folder.json(&["status", &id])["status"], "completed");
    folder.wake_sleepers();
    assert_eq!(folder.ok(&["status", &id, "--poll"]), "\"awake\"");
}

#[test]
fn what_cannot_be_served_is_said_by_name() {
    let folder = folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // task-executor stands two after the base.
    let base = (taken.local_addr().unwrap().port() - 2).to_string();
    let said = folder.tasker(&["serve", "--services", "task-executor", "--port", &base]);
    assert!(
        said.code == 1 && said.err.contains("task-executor") && said.err.contains("in use"),
        "{said:?}"
    );
    assert!(!folder.path().join(".service-registry.json").exists());
    let said = folder.tasker(&["serve", "--services", "tusk-executor"]);
    assert!(
        said.code == 2 && said.err.contains("tusk-executor") && said.err.contains("task-executor"),
        "{said:?}"
    );
    let said = folder.tasker(&["serve", "--bind", "0.0.0.0"]);
    assert!(
        said.code == 2 && said.err.contains("TASKER_TOKEN"),
        "{said:?}"
    );
    let said = folder.tasker(&["serve", "--services", "keystore"]);
    assert!(
        said.code == 2 && said.err.contains("TASKER_TOKEN"),
        "{said:?}"
    );
}
