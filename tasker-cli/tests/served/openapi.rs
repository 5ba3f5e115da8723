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

/// An operation whose requests the document allows and that may be refused all the same, and the statuses that may come.
/// Every other check holds for it too.
type MayRefuse = (&'static str, &'static [u16]);

fn settings(may_refuse: &[MayRefuse]) -> String {
    let each = may_refuse.iter().map(|(operation, statuses)| {
        let statuses: Vec<String> = statuses.iter().map(|status| format!("\"{status}\"")).collect();
        format!(
            "[[operations]]\ninclude-name = \"{operation}\"\nchecks.positive_data_acceptance.expected-statuses = [{}]\n",
            statuses.join(", ")
        )
    });
    each.collect()
}

fn compare(server: &Server, service: &str, may_refuse: &[MayRefuse]) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("schemathesis.toml"), settings(may_refuse)).unwrap();
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
    let said = command.output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.status.success(),
        "{service}: {text}\n{}",
        String::from_utf8_lossy(&said.stderr)
    );
    assert!(text.contains("generated"), "it asked something: {text}");
}

/// A service `gapi` in another process: with it no check of admin-debug has to answer that there are no credentials.
const GAPI: &str = r#"
import { createServer } from "node:http";
createServer((request, response) => {
  request.resume();
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ success: true, data: { domains: [] } }));
}).listen(Number(process.env.PORT), "127.0.0.1");
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_document_says_is_true() {
    let folder = Folder::new();
    folder.write(
        "tasks/hello.js",
        "/** @task hello */\nmodule.exports = async (input) => input;\n",
    );
    folder.ok(&["publish", "--all"]);
    // The engine of the server that has `google` works on another database: runs of this one are called with this one's settings.
    let google_folder = Folder::new();
    google_folder.write(
        "services/google/service.toml",
        "command = ['node', 'index.mjs']\nhealth = '/'\n",
    );
    google_folder.write("services/google/index.mjs", GAPI);
    let path = crate::path();
    let elsewhere = Server::start(
        &google_folder,
        &["--services", "google"],
        &[("PATH", &path)],
    );
    let google = elsewhere.url("google", "");
    let master = "55".repeat(32);
    let variables = [
        ("PATH", &*path),
        ("TASKER_TOKEN", "t0ken"),
        ("TASKER_MASTER_KEY", &*master),
        ("TASKER_SERVICE_GAPI_URL", &*google),
    ];
    let services = "task-executor,simple-stack-processor,deno-executor,keystore,admin-debug";
    let server = Server::start(&folder, &["--services", services], &variables);
    for (service, may_refuse) in [
        ("task-executor", &[][..]),
        ("simple-stack-processor", &[]),
        ("admin-debug", &[]),
        // Which text is task code, which state fits to it, and which call waits, no schema can say.
        (
            "deno-executor",
            &[
                ("POST /", &[200, 400][..]),
                ("POST /resume", &[200, 400, 403, 404, 409]),
            ],
        ),
        // Which arguments a method takes stands in its description, for people.
        ("keystore", &[("POST /", &[200, 400, 404])]),
    ] {
        compare(&server, service, may_refuse);
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
