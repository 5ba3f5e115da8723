//! A server that is killed under load: nothing that it accepted is lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::kit::Folder;
use crate::kit::server::Server;

const WORK: &str = "/** @task work */\nmodule.exports = async (input, { tools }) => {\n  await tools.sleep(5);\n  const twice = await tools.tasks.execute('twice', { n: input.n });\n  await tools.sleep(5);\n  return twice;\n};\n";
const TWICE: &str = "/** @task twice */\nmodule.exports = async (input) => input.n * 2;\n";
/// Runs that were accepted before a kill, at least.
const ACCEPTED: usize = 60;
const SENDERS: usize = 8;

#[tokio::test]
async fn what_was_accepted_before_a_kill_under_load_is_done_after_it() {
    let folder = Folder::new();
    folder.write("tasks/work.js", WORK);
    folder.write("tasks/twice.js", TWICE);
    folder.ok(&["publish", "--all"]);
    let lease = [("TASKER_LEASE_MS", "2000")];
    let mut accepted: BTreeSet<(String, usize)> = BTreeSet::new();
    for round in 0..2 {
        let mut server = Server::start(&folder, &["--services", "task-executor"], &lease);
        let url = server.url("task-executor", "/execute");
        let (stop, count) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (client, url, stop, count) = (
                    server.client.clone(),
                    url.clone(),
                    Arc::clone(&stop),
                    Arc::clone(&count),
                );
                tokio::spawn(async move {
                    let mut accepted = Vec::new();
                    for index in 0..2_000 {
                        let n = (round * SENDERS + sender) * 10_000 + index;
                        let body = json!({"taskName": "work", "input": {"n": n}}).to_string();
                        // The kill cuts requests off: what was not answered was not accepted.
                        let Ok(answer) = client.post(&url).body(body).send().await else {
                            break;
                        };
                        let status = answer.status().as_u16();
                        let Ok(said) = answer.json::<Value>().await else {
                            break;
                        };
                        assert_eq!(status, 202, "{said}");
                        accepted.push((said["data"]["taskRunId"].as_str().unwrap().to_owned(), n));
                        count.fetch_add(1, Ordering::Relaxed);
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    accepted
                })
            })
            .collect();
        while count.load(Ordering::Relaxed) < ACCEPTED {
            tokio::task::yield_now().await;
        }
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        stop.store(true, Ordering::Relaxed);
        for sender in senders {
            accepted.extend(sender.await.unwrap());
        }
    }
    assert!(accepted.len() >= 2 * ACCEPTED);
    let server = Server::start(&folder, &["--services", "task-executor"], &lease);
    for (id, n) in &accepted {
        let mut left = 3_000;
        loop {
            let (status, said) = server
                .get("task-executor", &format!("/status?id={id}"))
                .await;
            assert_eq!(status.as_u16(), 200, "{said}");
            if said["data"]["status"] == "completed" {
                assert_eq!(said["data"]["result"], json!(n * 2), "{said}");
                break;
            }
            assert!(
                ["queued", "processing", "suspended"]
                    .contains(&said["data"]["status"].as_str().unwrap()),
                "{said}"
            );
            left -= 1;
            assert!(left > 0, "{said}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
    assert_eq!(folder.json(&["db", "check"])["violations"], json!([]));
}
