//! Every command line and every HTTP request that the two documents of the earlier system print, in our spelling, with the
//! built binary. `docs/coming-from-the-earlier-tasker.md` has the same list for people. The numbers are lines of
//! `tasker-readme.md` (R) and `wrapped-services.md` (W).

use serde_json::{Value, json};

use crate::kit::server::Server;
use crate::kit::{Folder, wait_until};

/// The task that R prints at 47–78, word for word but for its comment.
const DOMAINS: &str = r#"/**
 * @task gapi-list-domains-with-nested
 * @description List all domains for G Suite with nested task call example
 * @param {object} input - Input parameters
 * @param {boolean} [input.includeStats] - Include usage statistics
 * @returns {Object} Domain information
 */
module.exports = async function execute(input, context) {
  // Task implementation
  const authResult = await context.tools.gapi.authenticate("https://example.com/scope");
  const domainsResult = await context.tools.gapi.admin.directory.domains.list({
    customer: input.customer || "my_customer"
  });

  // Nested task call
  if (input.includeStats) {
    const stats = await context.tools.tasks.execute("module-diagnostic", {
      checkGlobalScope: true
    });

    return {
      domains: domainsResult.domains,
      stats: stats
    };
  }

  return { domains: domainsResult.domains };
};
"#;

const DIAGNOSTIC: &str = "/**\n * Looks at where it runs.\n * @task module-diagnostic\n * @param {object} input - What to look at\n * @param {boolean} [input.checkGlobalScope] - The global scope\n */\nmodule.exports = async (input) => ({ hasProcess: input.checkGlobalScope ? typeof process !== 'undefined' : null });\n";

/// A service `gapi` in another process, that answers what Google would.
const GAPI: &str = r#"
import { createServer } from "node:http";
createServer(async (request, response) => {
  let text = "";
  for await (const piece of request) text += piece;
  const names = (JSON.parse(text || "{}").chain ?? []).map((link) => link.property).join(".");
  const data = names.endsWith("domains.list") ? { domains: [{ domainName: "example.com" }] } : true;
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ success: true, data }));
}).listen(Number(process.env.PORT), "127.0.0.1");
"#;

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("tasks/gapi-list-domains-with-nested.js", DOMAINS);
    folder.write("tasks/module-diagnostic.js", DIAGNOSTIC);
    folder
}

fn names(listed: &Value) -> Vec<&str> {
    let lines = listed.as_array().unwrap().iter();
    lines.map(|line| line["name"].as_str().unwrap()).collect()
}

#[test]
fn the_publisher() {
    let folder = folder();
    // R90: publish.ts --specific module-diagnostic
    let said = folder.json(&["publish", "--specific", "module-diagnostic"]);
    assert_eq!(
        (names(&said), &said[0]["state"]),
        (vec!["module-diagnostic"], &json!("published"))
    );
    // R89: publish.ts --all, and R97: npm run publish
    let said = folder.json(&["publish", "--all"]);
    assert_eq!(
        names(&said),
        ["gapi-list-domains-with-nested", "module-diagnostic"]
    );
    // R91: publish.ts --list
    let said = folder.json(&["publish", "--list"]);
    assert!(
        said.as_array()
            .unwrap()
            .iter()
            .all(|line| line["state"] == "unchanged"),
        "{said}"
    );
}

#[test]
fn the_task_executor_on_the_command_line() {
    let folder = folder();
    folder.ok(&["publish", "--all"]);
    // R107: run-task.ts --list, and R113: npm run task -- --list
    assert_eq!(
        names(&folder.json(&["task", "--list"])),
        ["gapi-list-domains-with-nested", "module-diagnostic"]
    );
    // R105: run-task.ts --task gapi-list-domains-with-nested
    let id = folder.ok(&["task", "--task", "gapi-list-domains-with-nested"]);
    assert_eq!(folder.json(&["status", &id])["status"], "queued");
    // R106: run-task.ts --task … --input …, and R114: npm run task -- --task … --input …
    let input = r#"{"checkGlobalScope":true}"#;
    let id = folder.ok(&["task", "--task", "module-diagnostic", "--input", input]);
    assert_eq!(
        folder.ok(&["status", &id, "--poll"]),
        r#"{"hasProcess":false}"#
    );
    // R115: npm run task -- --task gapi-list-domains-with-nested --poll; there are no credentials, and it says so.
    let said = folder.tasker(&["task", "--task", "gapi-list-domains-with-nested", "--poll"]);
    assert!(said.code == 3 && said.err.contains("GAPI_KEY"), "{said:?}");
}

#[tokio::test]
async fn the_task_of_the_readme_runs_as_it_is_printed() {
    // R47–78, with a `gapi` that answers, and its nested task.
    let folder = folder();
    folder.ok(&["publish", "--all"]);
    // The service has a folder and a database of its own: the engine of its server must not take the run.
    let elsewhere = Folder::new();
    elsewhere.write(
        "services/google/service.toml",
        "command = ['node', 'index.mjs']\nhealth = '/'\n",
    );
    elsewhere.write("services/google/index.mjs", GAPI);
    let variables = [("PATH", &*crate::path())];
    let google = Server::start(&elsewhere, &["--services", "google"], &variables);
    let url = google.url("google", "");
    let said = folder.with(
        &[
            "task",
            "-t",
            "gapi-list-domains-with-nested",
            "-i",
            r#"{"includeStats":true}"#,
            "-p",
        ],
        "",
        &[("TASKER_SERVICE_GAPI_URL", &url)],
    );
    assert_eq!(
        said.out, r#"{"domains":[{"domainName":"example.com"}],"stats":{"hasProcess":false}}"#,
        "{said:?}"
    );
}

#[tokio::test]
async fn services_start_by_the_printed_command_lines() {
    let folder = folder();
    let base = free_ports(20).to_string();
    let token = ("TASKER_TOKEN", "t0ken");
    // W9: npx tasker, and W469: npx tasker --port 3100 --debug
    let all = Server::start_with(&folder, &["--port", &base, "--debug"], &[], &[]);
    // W24–34: their names, and each at its place from the base.
    for (name, place) in [
        ("deno-executor", 0),
        ("simple-stack-processor", 1),
        ("task-executor", 2),
        ("gapi", 3),
        ("openai", 6),
        ("websearch", 7),
        ("admin-debug", 8),
    ] {
        let port = base.parse::<u16>().unwrap() + place;
        assert_eq!(
            all.url(name, ""),
            format!("http://127.0.0.1:{port}"),
            "{name}"
        );
    }
    // W583–596: the registry file.
    let file = std::fs::read_to_string(folder.path().join(".service-registry.json")).unwrap();
    let file: Value = serde_json::from_str(&file).unwrap();
    assert!(
        file["timestamp"].is_string() && file["services"][0]["port"].is_u64(),
        "{file}"
    );
    assert_eq!(file["services"][0]["name"], "deno-executor");
    drop(all);
    // W12: npx tasker --services deno-executor,keystore,gapi --port 3100
    let some = Server::start_with(
        &folder,
        &["--port", &base],
        &["--services", "deno-executor,keystore,gapi"],
        &[token],
    );
    assert_eq!(some.said["services"].as_array().unwrap().len(), 3);
    drop(some);
    // W15: npx tasker --deno --debug (and W564–566: --node, --bun)
    for runtime in ["--deno", "--node", "--bun"] {
        let server = Server::start(
            &folder,
            &[runtime, "--debug", "--services", "deno-executor"],
            &[],
        );
        assert_eq!(server.get("deno-executor", "/health").await.0.as_u16(), 200);
    }
    // W439: DEBUG=true npx tasker; W525–528: PORT, SERVICE_NAME, DENO_ENV; W478: PORT=3100 … services/deno-executor
    let server = Server::start_with(
        &folder,
        &[],
        &["--services", "deno-executor"],
        &[
            ("PORT", &base),
            ("DEBUG", "true"),
            ("SERVICE_NAME", "my-service"),
            ("DENO_ENV", "production"),
        ],
    );
    assert_eq!(
        server.url("deno-executor", ""),
        format!("http://127.0.0.1:{base}")
    );
    let log = server.log();
    assert!(
        log.lines().all(|line| line.starts_with('{')),
        "production logs in JSON: {log}"
    );
    drop(server);
    // W475: deno run --watch …
    let server = Server::start(&folder, &["--watch", "--services", "task-executor"], &[]);
    wait_until(|| folder.json(&["tasks"]).as_array().unwrap().len() == 2);
    drop(server);
    // W569: --help
    assert!(folder.ok(&["serve", "--help"]).contains("--services"));
}

#[tokio::test]
async fn requests_of_the_executor() {
    let folder = folder();
    let server = Server::start(&folder, &["--services", "deno-executor"], &[]);
    let executor = "deno-executor";
    // W444: curl -X POST http://localhost:3100/health; W73: GET /health
    assert_eq!(server.send(executor, "/health", "").await.0, 200);
    assert_eq!(server.get(executor, "/health").await.0.as_u16(), 200);
    // W445: curl -X POST http://localhost:3100/ -d '{"method":"test"}'
    let (status, said) = server.send(executor, "/", r#"{"method":"test"}"#).await;
    assert_eq!(
        (status, &said["data"]["status"]),
        (200, &json!("healthy")),
        "{said}"
    );
    // W71, W84–89: POST / with task code
    let code = "module.exports = async (input, { tools }) => ({ found: await tools.gapi.admin.domains.list({ customer: input.c }) });";
    let (status, said) = server
        .post(
            executor,
            "/",
            &json!({"taskCode": code, "input": {"c": "C1"}}),
        )
        .await;
    let paused = &said["data"];
    assert_eq!(
        (
            status.as_u16(),
            &paused["status"],
            &paused["suspensionData"]["serviceName"],
            &paused["suspensionData"]["args"]
        ),
        (
            200,
            &json!("paused"),
            &json!("gapi"),
            &json!([{"customer": "C1"}])
        ),
        "{said}"
    );
    // W72, W84–89: POST /resume with the state and the result of the call
    let (_, said) = server
        .post(executor, "/resume", &json!({"taskCode": code, "input": {}, "vmState": paused["vmState"], "externalResult": ["d"]}))
        .await;
    assert_eq!(said["data"]["result"], json!({"found": ["d"]}), "{said}");
    // W51–52: the general request forms
    for body in [
        json!({"method": "execute", "args": [{"taskCode": "module.exports = () => 1"}]}),
        json!({"chain": [{"property": "execute", "args": [{"taskCode": "module.exports = () => 1"}]}]}),
    ] {
        assert_eq!(
            server.post(executor, "/", &body).await.1["data"]["result"],
            1,
            "{body}"
        );
    }
    // W55–60 and W384–393: the envelope
    assert!(said["success"] == true && said["error"].is_null(), "{said}");
    let metadata = &said["metadata"];
    assert!(
        metadata["duration"].is_u64()
            && metadata["timestamp"].is_string()
            && metadata["requestId"].is_string()
    );
}

#[tokio::test]
async fn requests_of_the_task_executor_and_the_stack_processor() {
    let folder = folder();
    folder.ok(&["publish", "--all"]);
    let server = Server::start(
        &folder,
        &[
            "--services",
            "task-executor,simple-stack-processor",
            "--drive",
            "post",
        ],
        &[],
    );
    let (tasks, processor) = ("task-executor", "simple-stack-processor");
    // W123: POST /execute
    let (status, said) = server
        .post(
            tasks,
            "/execute",
            &json!({"taskName": "module-diagnostic", "input": {"checkGlobalScope": true}}),
        )
        .await;
    assert_eq!(status.as_u16(), 202, "{said}");
    let id = said["data"]["taskRunId"].as_str().unwrap().to_owned();
    // W96, W109: POST / with {stackRunId}: ids are texts, and a number is answered with what to send
    let (status, said) = server.send(processor, "/", r#"{"stackRunId": 1}"#).await;
    assert!(
        status == 400 && said["error"].as_str().unwrap().contains("texts"),
        "{said}"
    );
    let root = folder.json(&["trace", &id])["root"]["id"].clone();
    let (_, said) = server
        .post(processor, "/", &json!({"stackRunId": root}))
        .await;
    assert_eq!(
        (&said["data"]["status"], &said["data"]["processed"]),
        (&json!("success"), &json!(true)),
        "{said}"
    );
    // W96, W109: POST / with {trigger:'process-next'}
    let (_, said) = server
        .send(processor, "/", r#"{"trigger":"process-next"}"#)
        .await;
    assert_eq!(said["data"]["reason"], "no_pending", "{said}");
    // W97: GET /health
    assert_eq!(server.get(processor, "/health").await.0.as_u16(), 200);
    // W126: GET /status
    let (_, said) = server.get(tasks, &format!("/status?id={id}")).await;
    assert_eq!(
        (&said["data"]["status"], &said["data"]["result"]),
        (&json!("completed"), &json!({"hasProcess": false}))
    );
    // W127: GET /logs
    assert_eq!(
        server.get(tasks, &format!("/logs?id={id}")).await.1["data"]["logs"],
        json!([])
    );
    // W124: GET /list
    assert_eq!(server.get(tasks, "/list").await.1["data"]["count"], 2);
    // W125: GET /schema
    let (_, said) = server.get(tasks, "/schema?name=module-diagnostic").await;
    assert_eq!(said["data"]["name"], "module-diagnostic", "{said}");
    // W51–52: the general request forms
    let (status, said) = server
        .send(
            tasks,
            "/",
            r#"{"chain":[{"property":"execute","args":["module-diagnostic",{}]}]}"#,
        )
        .await;
    assert_eq!(status, 202, "{said}");
    assert_eq!(
        server.send(tasks, "/", r#"{"method":"list"}"#).await.1["data"]["count"],
        2
    );
    assert_eq!(
        server
            .post(tasks, "/", &json!({"action": "status", "id": id}))
            .await
            .1["data"]["status"],
        "completed"
    );
}

#[tokio::test]
async fn requests_of_the_services() {
    let folder = folder();
    let master = "44".repeat(32);
    // W536–553: variables of the services
    let variables = [
        ("TASKER_TOKEN", "t0ken"),
        ("TASKER_MASTER_KEY", &master),
        ("SUPABASE_URL", "http://127.0.0.1:9"),
        ("SUPABASE_ANON_KEY", "anon-key-1"),
        ("SUPABASE_SERVICE_ROLE_KEY", "role-key-1"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:9"),
        ("OPENAI_API_KEY", "sk-planted-1"),
        ("WEBSEARCH_API_KEY", "web-key-1"),
        ("WEBSEARCH_ENGINE_ID", "engine-1"),
        ("GAPI_SERVICE_ACCOUNT_JSON", "not-json-planted"),
        ("GAPI_ADMIN_EMAIL", "admin@example.com"),
    ];
    let server = Server::start(&folder, &[], &variables);
    let ask = async |service: &str, body: Value| {
        let request = server
            .client
            .post(server.url(service, "/"))
            .bearer_auth("t0ken");
        let answer = request.body(body.to_string()).send().await.unwrap();
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap(),
        )
    };
    // W163, W368–379: getKey, setKey, listKeys, hasKey, listNamespaces, getServerTime
    let call = |method: &str, args: Value| json!({"method": method, "args": args});
    assert_eq!(
        ask(
            "keystore",
            call("setKey", json!(["global", "api_key_name", "v"]))
        )
        .await
        .1["data"],
        true
    );
    assert_eq!(
        ask(
            "keystore",
            call("getKey", json!(["global", "api_key_name"]))
        )
        .await
        .1["data"],
        "v"
    );
    // W376: the printed order (key, namespace) is understood as well.
    assert_eq!(
        ask(
            "keystore",
            call("getKey", json!(["api_key_name", "global"]))
        )
        .await
        .1["data"],
        "v"
    );
    assert_eq!(
        ask("keystore", call("listKeys", json!(["global"]))).await.1["data"],
        json!(["api_key_name"])
    );
    // W368–379, word for word: the key, then a namespace that holds keys.
    let own =
        json!({"action": "setKey", "namespace": "namespace", "key": "api_key_name", "value": "v2"});
    assert_eq!(ask("keystore", own).await.1["data"], true);
    assert_eq!(
        ask(
            "keystore",
            call("getKey", json!(["api_key_name", "namespace"]))
        )
        .await
        .1["data"],
        "v2"
    );
    assert_eq!(
        ask(
            "keystore",
            call("hasKey", json!(["global", "api_key_name"]))
        )
        .await
        .1["data"],
        true
    );
    assert_eq!(
        ask("keystore", call("listNamespaces", json!([]))).await.1["data"],
        json!(["global", "namespace"])
    );
    assert_eq!(
        ask("keystore", call("getServerTime", json!([]))).await.1["data"]["source"],
        "keystore"
    );
    // W183–190: the chain of supabase, W199: an action of openai, W209: websearch, W152: gapi. Nobody answers behind
    // them here: each says so in the envelope, as trouble of another service, and names no secret.
    for (service, body) in [
        (
            "supabase",
            json!({"chain": [
                {"property": "from", "args": ["table_name"]},
                {"property": "select", "args": ["*"]},
                {"property": "eq", "args": ["column", "value"]},
            ]}),
        ),
        ("openai", json!({"action": "models.list"})),
        (
            "openai",
            json!({"action": "chat.completions.create", "model": "m", "messages": []}),
        ),
        (
            "openai",
            json!({"method": "models.retrieve", "args": ["gpt-4o"]}),
        ),
        (
            "openai",
            json!({"action": "embeddings.create", "input": "x", "model": "m"}),
        ),
        (
            "openai",
            json!({"chain": [{"property": "chat"}, {"property": "completions"}, {"property": "create", "args": [{"model": "m", "messages": []}]}]}),
        ),
        (
            "gapi",
            json!({"chain": [{"property": "admin"}, {"property": "domains"}, {"property": "list", "args": [{}]}]}),
        ),
    ] {
        let (status, said) = ask(service, body).await;
        let kind = said["errorDetails"]["type"].as_str().unwrap();
        assert!(
            status >= 500 && said["success"] == false,
            "{service}: {status} {said}"
        );
        assert!(
            [
                "EXTERNAL_SERVICE_ERROR",
                "TIMEOUT_ERROR",
                "CONFIGURATION_ERROR"
            ]
            .contains(&kind),
            "{said}"
        );
        assert!(
            !said.to_string().contains("planted") && !said.to_string().contains("role-key"),
            "{said}"
        );
    }
    assert!(!server.log().contains("planted"));
}

#[tokio::test]
async fn requests_of_admin_debug() {
    let folder = folder();
    let server = Server::start(&folder, &["--services", "admin-debug"], &[]);
    // W451: curl -X POST http://localhost:3108/ -d '{"action":"test-direct-gapi"}'
    let (status, said) = server
        .send("admin-debug", "/", r#"{"action":"test-direct-gapi"}"#)
        .await;
    assert!(
        status == 500 && said["errorDetails"]["type"] == "CONFIGURATION_ERROR",
        "{said}"
    );
    assert!(
        said["error"].as_str().unwrap().contains("GAPI_KEY"),
        "{said}"
    );
    // W454: curl -X POST http://localhost:3108/ -d '{"action":"test-stack-processor"}'
    let (status, said) = server
        .send("admin-debug", "/", r#"{"action":"test-stack-processor"}"#)
        .await;
    assert_eq!(
        (
            status,
            &said["data"]["success"],
            &said["data"]["stackRunStatus"]
        ),
        (200, &json!(true), &json!("completed")),
        "{said}"
    );
    // The same by the query, and what there is.
    assert_eq!(
        server.send("admin-debug", "/?action=database", "").await.1["data"]["violations"],
        json!([])
    );
    let (_, said) = server.get("admin-debug", "/?action=services").await;
    assert!(
        said["data"]["services"].as_array().unwrap().len() >= 4,
        "{said}"
    );
    let (status, said) = server.get("admin-debug", "/?action=nope").await;
    assert!(
        status.as_u16() == 400 && said["errorDetails"]["details"]["availableActions"].is_array(),
        "{said}"
    );
}

#[tokio::test]
async fn a_new_service_by_the_printed_steps() {
    // W400: mkdir services/my-service, W403–430: its code, W432: found and started by `tasker serve`
    let folder = folder();
    let path = crate::path();
    folder.ok(&["service", "new", "my-service"]);
    let server = Server::start(&folder, &["--services", "my-service"], &[("PATH", &path)]);
    let (status, said) = server
        .send(
            "my-service",
            "/",
            r#"{"method":"hello","args":[{"name":"Ada"}]}"#,
        )
        .await;
    assert_eq!(
        (status, &said["data"]["message"]),
        (200, &json!("Hello, Ada!")),
        "{said}"
    );
    // W460–462: the templates
    let listed = folder.ok(&["service", "new", "--help"]);
    for template in ["hello-world", "echo-service", "api-gateway"] {
        assert!(listed.contains(template), "{listed}");
    }
}

/// A base after which this many ports are free.
fn free_ports(count: u16) -> u16 {
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    // Below what systems give to clients and to servers that ask for any port.
    let start = 10_000 + (std::process::id() % 450) as u16 * 20;
    (start..30_000)
        .step_by(usize::from(count))
        .find(|base| (*base..base + count).all(free))
        .unwrap()
}
