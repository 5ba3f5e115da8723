//! `/openapi.json` and the server, compared by Schemathesis: it sends what the document allows and what it forbids, and looks
//! whether status, headers and bodies are those of the document. `.config/schemathesis.sh` installs it, pinned.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::kit::Folder;
use crate::kit::server::Server;

/// Cases for each operation.
const CASES: &str = "15";

fn schemathesis() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.config/schemathesis.sh");
        let made = Command::new(script)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "Schemathesis could not be installed; see above"
        );
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    })
}

/// Compares; `but` are checks that cannot hold, with their reason at the call.
fn compare(server: &Server, service: &str, but: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(schemathesis());
    command
        .current_dir(dir.path())
        .args([
            "run",
            &server.url(service, "/openapi.json"),
            "--url",
            &server.url(service, ""),
        ])
        .args([
            "-H",
            "Authorization: Bearer t0ken",
            "--phases",
            "examples,coverage,fuzzing",
        ])
        .args([
            "-n",
            CASES,
            "--seed",
            "7",
            "--suppress-health-check",
            "all",
            "--no-color",
            "--generation-database",
            "none",
        ]);
    if !but.is_empty() {
        command.args(["--exclude-checks", &but.join(",")]);
    }
    let said = command.output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.status.success(),
        "{service}: {text}\n{}",
        String::from_utf8_lossy(&said.stderr)
    );
    assert!(text.contains("generated"), "it asked something: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_document_says_is_true() {
    let folder = Folder::new();
    folder.write(
        "tasks/hello.js",
        "/** @task hello */\nmodule.exports = async (input) => input;\n",
    );
    folder.ok(&["publish", "--all"]);
    let master = "55".repeat(32);
    let variables = [("TASKER_TOKEN", "t0ken"), ("TASKER_MASTER_KEY", &*master)];
    let server = Server::start(&folder, &[], &variables);
    for (service, but) in [
        ("task-executor", &[][..]),
        ("simple-stack-processor", &[]),
        // Which text is task code, and which arguments a method takes, no schema can say.
        ("deno-executor", &["positive_data_acceptance"]),
        (
            "keystore",
            &["positive_data_acceptance", "negative_data_rejection"],
        ),
        // Without credentials one of its checks answers 500, and says so.
        ("admin-debug", &["not_a_server_error"]),
    ] {
        compare(&server, service, but);
    }
    // After all of that it works, and nothing panicked.
    assert_eq!(server.get("task-executor", "/health").await.0.as_u16(), 200);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[tokio::test]
async fn each_service_has_a_document_of_its_own() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[], &[]);
    for service in [
        "deno-executor",
        "simple-stack-processor",
        "task-executor",
        "gapi",
        "openai",
        "websearch",
        "admin-debug",
    ] {
        let answer = server
            .client
            .get(server.url(service, "/openapi.json"))
            .send()
            .await
            .unwrap();
        let document: Value = answer.json().await.unwrap();
        assert_eq!(
            (&document["openapi"], &document["info"]["title"]),
            (&"3.1.0".into(), &service.into())
        );
        assert!(document["paths"]["/health"]["get"].is_object(), "{service}");
        assert!(document["security"].is_null(), "there is no token");
    }
}
