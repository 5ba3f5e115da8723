//! Services of a folder: started, found, looked after, stopped. And tasks that are watched.

use serde_json::{Value, json};

use crate::kit::server::Server;
use crate::kit::{Folder, wait_until};

/// A service in another language: answers with its variables, and ends when it is told to.
const PYTHON: &str = r#"
import json, os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass
    def do_GET(self):
        self.answer({"pid": os.getpid()})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        link = body["chain"][-1]
        if link["property"] == "end":
            os._exit(3)
        self.answer({link["property"]: link["args"], "pid": os.getpid(), "variables": dict(os.environ)})
    def answer(self, data):
        text = json.dumps({"success": True, "data": data}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

print("my password=hunter22 is here", flush=True)
HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"#;
const MANIFEST: &str =
    "command = ['python3', 'main.py']\npass_env = ['PASSED']\n[env]\nOWN = 'own'\n";
const ASKS: &str = "/** @task asks */\nmodule.exports = async (input, { tools }) => (await tools.snake.echo(input)).echo;\n";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("services/snake/service.toml", MANIFEST);
    folder.write("services/snake/main.py", PYTHON);
    folder.write("tasks/asks.js", ASKS);
    folder.ok(&["publish", "--all"]);
    folder
}

fn chain(method: &str) -> String {
    json!({"chain": [{"property": method, "args": [1]}]}).to_string()
}

fn is_there(pid: &Value) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_service_in_any_language_is_started_called_restarted_and_stopped() {
    let folder = folder();
    let path = crate::path();
    let variables = [
        ("PATH", &*path),
        ("PASSED", "passed"),
        ("OPENAI_API_KEY", "sk-planted"),
    ];
    let mut server = Server::start(&folder, &["--services", "task-executor,snake"], &variables);
    assert_eq!(server.said["problems"], json!({}));
    let file = std::fs::read_to_string(folder.path().join(".service-registry.json")).unwrap();
    assert!(file.contains("\"snake\""), "{file}");

    // Tasks call it by its name, under the server and from a command that leaves the work to it.
    assert_eq!(
        folder.ok(&["run", "asks", "--input", r#"{"a":1}"#, "--poll"]),
        r#"[{"a":1}]"#
    );
    let (_, said) = server.send("snake", "/", &chain("x")).await;
    let seen = &said["data"]["variables"];
    assert_eq!(
        (&seen["OWN"], &seen["PASSED"], &seen["SERVICE_NAME"]),
        (&json!("own"), &json!("passed"), &json!("snake"))
    );
    assert!(
        seen["OPENAI_API_KEY"].is_null(),
        "it sees what its manifest asks for and no more: {seen}"
    );
    assert!(
        seen["TASKER_SERVICE_TASK_EXECUTOR_URL"].is_string(),
        "it sees where the others are: {seen}"
    );
    let metrics = server
        .client
        .get(server.url("task-executor", "/metrics"))
        .send()
        .await
        .unwrap();
    assert!(
        metrics
            .text()
            .await
            .unwrap()
            .contains(r#"tasker_service_up{service="snake"} 1"#)
    );

    // It ends, and is started again.
    let first = said["data"]["pid"].clone();
    let _ = server
        .client
        .post(server.url("snake", "/"))
        .body(chain("end"))
        .send()
        .await;
    let mut pid = Value::Null;
    for _ in 0..2_400 {
        if let Ok(answer) = server.client.get(server.url("snake", "/")).send().await {
            pid = answer.json::<Value>().await.unwrap()["data"]["pid"].clone();
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(pid.is_u64() && pid != first, "{first} {pid}");
    let log = server.log();
    assert!(
        log.contains("snake") && log.contains("it ended by itself"),
        "{log}"
    );
    assert!(
        log.contains("password=[redacted]") && !log.contains("hunter22"),
        "{log}"
    );

    // It is stopped with the server.
    server.signal("-TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    wait_until(|| !is_there(&pid));
    assert!(!folder.path().join(".service-registry.json").exists());
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_service_ends_also_when_its_server_is_killed() {
    let folder = folder();
    let mut server = Server::start(
        &folder,
        &["--services", "snake"],
        &[("PATH", &crate::path())],
    );
    let pid = server.get("snake", "/").await.1["data"]["pid"].clone();
    assert!(is_there(&pid));
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    wait_until(|| !is_there(&pid));
}

#[tokio::test]
async fn what_does_not_start_is_said_by_name_and_the_rest_goes_on() {
    let folder = Folder::new();
    folder.write(
        "services/absent/service.toml",
        "command = ['no-such-program-here']\n",
    );
    folder.write(
        "services/silent/service.toml",
        "command = ['sleep', '60']\nstart_timeout_secs = 1\n",
    );
    let server = Server::start(&folder, &[], &[("PATH", &crate::path())]);
    let problems = &server.said["problems"];
    assert!(
        problems["absent"]
            .as_str()
            .unwrap()
            .contains("no-such-program-here"),
        "{problems}"
    );
    assert!(
        problems["silent"].as_str().unwrap().contains("PORT"),
        "{problems}"
    );
    assert_eq!(server.get("task-executor", "/health").await.0.as_u16(), 200);
    drop(server);

    folder.write("services/absent/service.toml", "comand = ['x']\n");
    let said = folder.tasker(&["serve", "--port", "0"]);
    assert!(
        said.code == 2 && said.err.contains("service.toml") && said.err.contains("comand"),
        "{said:?}"
    );
}

#[tokio::test]
async fn templates_are_made_listed_and_answer() {
    let folder = Folder::new();
    for template in ["hello-world", "echo-service", "api-gateway"] {
        folder.ok(&[
            "service",
            "new",
            &format!("my-{template}"),
            "--template",
            template,
        ]);
    }
    assert_eq!(
        folder.json(&["service", "list"]).as_array().unwrap().len(),
        3
    );
    let again = folder.tasker(&["service", "new", "my-hello-world"]);
    assert!(
        again.code == 1 && again.err.contains("there already"),
        "{again:?}"
    );
    for wrong in ["keystore", "Big", "1st", "../up"] {
        let said = folder.tasker(&["service", "new", wrong]);
        assert_eq!(said.code, 2, "{said:?}");
    }
    // The gateway may pass on to the greeter, whose address is known before it is started.
    let server = Server::start(
        &folder,
        &["--services", "my-hello-world"],
        &[("PATH", &crate::path())],
    );
    let greeter = server.url("my-hello-world", "");
    let host = greeter.strip_prefix("http://").unwrap();
    let manifest = folder.path().join("services/my-api-gateway/service.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(
        &manifest,
        text.replace(
            "ALLOWED_HOSTS = \"\"",
            &format!("ALLOWED_HOSTS = \"{host}\""),
        ),
    )
    .unwrap();
    let others = Server::start(
        &folder,
        &["--services", "my-echo-service,my-api-gateway"],
        &[("PATH", &crate::path())],
    );
    let (_, said) = others
        .send("my-echo-service", "/", r#"{"action":"echo","a":[1]}"#)
        .await;
    assert_eq!(said["data"]["echo"], json!({"a": [1]}), "{said}");
    let ask = |endpoint: &str| json!({"method": "request", "args": [{"endpoint": endpoint, "method": "POST", "data": {"method": "hello"}}]});
    let (_, said) = others.post("my-api-gateway", "/", &ask(&greeter)).await;
    assert_eq!(
        (
            &said["data"]["status"],
            &said["data"]["data"]["data"]["message"]
        ),
        (&json!(200), &json!("Hello, world!")),
        "{said}"
    );
    let (status, said) = others
        .post("my-api-gateway", "/", &ask("http://127.0.0.1:1/"))
        .await;
    assert_eq!(
        (status.as_u16(), &said["errorDetails"]["type"]),
        (403, &json!("AUTHORIZATION_ERROR")),
        "{said}"
    );
    let (status, _) = others.send("my-echo-service", "/", "{").await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn a_service_of_another_server_is_called_there() {
    let folder = folder();
    let path = crate::path();
    // Its own engine takes no runs: each is the second one's.
    let first = Server::start(
        &folder,
        &["--services", "snake", "--drive", "post"],
        &[("PATH", &path)],
    );
    // Another server of the folder finds it in the registry file, and both keep their entries there.
    let mut second = Server::start(&folder, &["--services", "task-executor"], &[]);
    let (_, said) = second
        .post(
            "task-executor",
            "/execute?wait=240",
            &json!({"taskName": "asks", "input": 5}),
        )
        .await;
    assert_eq!(said["data"]["result"], json!([5]), "{said}");
    second.signal("-TERM");
    second.child.wait().unwrap();
    let file = std::fs::read_to_string(folder.path().join(".service-registry.json")).unwrap();
    assert!(
        file.contains("snake") && !file.contains("task-executor"),
        "{file}"
    );
    // The variable is stronger than the file, and than a service that is built in.
    let url = first.url("snake", "");
    let other = Folder::new();
    other.write("tasks/asks.js", &ASKS.replace("snake", "openai"));
    other.ok(&["publish", "--all"]);
    let said = other.with(
        &["run", "asks", "-i", "6", "-p"],
        "",
        &[("TASKER_SERVICE_OPENAI_URL", &url)],
    );
    assert_eq!(said.out, "[6]", "{said:?}");
    let said = other.with(
        &["run", "asks", "-i", "6", "-p"],
        "",
        &[("TASKER_SERVICE_OPENAI_URL", "nowhere")],
    );
    assert!(
        said.code == 2 && said.err.contains("TASKER_SERVICE_OPENAI_URL"),
        "{said:?}"
    );
}

#[tokio::test]
async fn tasks_are_published_again_as_their_files_change() {
    let folder = Folder::new();
    folder.write(
        "tasks/one.js",
        "/** @task one */\nmodule.exports = () => 1;\n",
    );
    let server = Server::start(&folder, &["--watch", "--services", "task-executor"], &[]);
    let run = |task: &str| folder.tasker(&["run", task, "--poll"]).out;
    wait_until(|| run("one") == "1");
    folder.write(
        "tasks/one.js",
        "/** @task one */\nmodule.exports = () => 'another';\n",
    );
    wait_until(|| run("one") == "\"another\"");
    // A wrong file is said, and the server goes on.
    folder.write("tasks/two.js", "module.exports = (");
    wait_until(|| server.log().contains("two.js"));
    folder.write(
        "tasks/two.js",
        "/** @task two */\nmodule.exports = () => 2;\n",
    );
    wait_until(|| run("two") == "2");
}
