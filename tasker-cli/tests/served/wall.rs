//! What stands between tasks and the server.

use serde_json::json;

use crate::kit::Folder;
use crate::kit::server::Server;

const ENDLESS: &str = "/** @task endless */\nmodule.exports = () => { for (;;) {} };\n";
const ONE: &str = "/** @task one */\nmodule.exports = async (input, { tools }) => { await tools.sleep(1); return 1; };\n";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("tasks/endless.js", ENDLESS);
    folder.write("tasks/one.js", ONE);
    folder.ok(&["publish", "--all"]);
    folder
}

/// Child processes of a server.
#[cfg(target_os = "linux")]
fn children(server: &Server) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{}/task", server.child.id())).unwrap();
    let of_thread =
        |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("children"));
    threads
        .flatten()
        .filter_map(|thread| of_thread(thread).ok())
        .map(|children| children.split_whitespace().count())
        .sum()
}

#[tokio::test]
async fn tasks_run_behind_either_wall_and_an_endless_one_ends_alone() {
    let folder = folder();
    for args in [&[][..], &["--wall", "in-process"], &["--wall", "process"]] {
        let services = [&["--services", "task-executor"], args].concat();
        let server = Server::start(&folder, &services, &[]);
        let ask = async |task: &str| {
            let body = json!({ "taskName": task });
            server
                .post("task-executor", "/execute?wait=240", &body)
                .await
                .1
        };
        assert_eq!(ask("one").await["data"]["result"], 1, "{args:?}");
        #[cfg(target_os = "linux")]
        assert_eq!(
            children(&server) > 0,
            args != ["--wall", "in-process"],
            "{args:?}"
        );
        let (endless, one) = tokio::join!(ask("endless"), ask("one"));
        assert_eq!(endless["data"]["status"], "failed", "{args:?}: {endless}");
        assert_eq!(one["data"]["result"], 1, "{args:?}: {one}");
    }
    // The executor the same: an answer, a pause and a way back, a limit, with and without a process for each request.
    for args in [&[][..], &["--wall", "in-process"]] {
        let services = [&["--services", "deno-executor"], args].concat();
        let server = Server::start(&folder, &services, &[]);
        let ask = async |path: &str, body: serde_json::Value| {
            server.post("deno-executor", path, &body).await.1["data"].clone()
        };
        let code = "module.exports = async (i, { tools }) => [await tools.gapi.x(i), i]";
        let paused = ask("/", json!({"taskCode": code, "input": {"a": 1.50}})).await;
        assert_eq!(
            paused["suspensionData"]["methodName"], "x",
            "{args:?}: {paused}"
        );
        for answer in [json!(null), json!("é\u{2028}"), json!({"deep": [1]})] {
            let body =
                json!({"taskCode": code, "vmState": paused["vmState"], "externalResult": answer});
            assert_eq!(
                ask("/resume", body).await["result"],
                json!([answer, {"a": 1.5}]),
                "{args:?}"
            );
        }
        let endless = ask(
            "/",
            json!({"taskCode": "module.exports = () => { for (;;) {} }"}),
        )
        .await;
        assert_eq!(
            endless["failure"]["name"], "LimitExceeded",
            "{args:?}: {endless}"
        );
        assert_eq!(server.get("deno-executor", "/health").await.0.as_u16(), 200);
    }
    let wrong = folder.with(&["run", "one", "--poll"], "", &[("TASKER_WALL", "none")]);
    assert!(
        wrong.code == 2 && wrong.err.contains("TASKER_WALL") && wrong.err.contains("in-process"),
        "{wrong:?}"
    );
}
