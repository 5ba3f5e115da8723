//! `/metrics`: what Prometheus reads after runs that really ran.

use serde_json::json;

use crate::kit::Folder;
use crate::kit::server::Server;

const TASKS: [(&str, &str); 4] = [
    (
        "nests",
        "module.exports = async (input, { tools }) => await tools.tasks.execute('works', {});",
    ),
    ("works", "module.exports = async () => 1;"),
    (
        "fails",
        "module.exports = async (input, { tools }) => await tools.nobody.ask();",
    ),
    (
        "sleeps",
        "module.exports = async (input, { tools }) => await tools.sleep(3600000);",
    ),
];

fn folder() -> Folder {
    let folder = Folder::new();
    for (name, code) in TASKS {
        folder.write(
            &format!("tasks/{name}.js"),
            &format!("/** @task {name} */\n{code}\n"),
        );
    }
    folder.ok(&["publish", "--all"]);
    folder
}

async fn scrape(server: &Server, service: &str) -> String {
    let request = server.client.get(server.url(service, "/metrics"));
    request.send().await.unwrap().text().await.unwrap()
}

/// The value of a line of what was scraped. What is open is left out when storage took too long to count it.
fn look(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map(|value| value.trim().parse().unwrap())
}

fn value(text: &str, name: &str) -> f64 {
    look(text, name).unwrap_or_else(|| panic!("{name} is not there: {text}"))
}

/// Scrapes until it holds: counts of what is open may be a second old.
async fn scrape_until(server: &Server, service: &str, holds: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    for _ in 0..1_200 {
        text = scrape(server, service).await;
        if holds(&text) {
            return text;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("it did not become so within two minutes: {text}");
}

#[tokio::test]
async fn runs_turns_and_calls_are_counted_as_they_happen() {
    let folder = folder();
    let server = Server::start(&folder, &["--services", "task-executor"], &[]);
    for (task, times) in [("nests", 3), ("fails", 2), ("sleeps", 1)] {
        for _ in 0..times {
            let wait = if task == "sleeps" { "0" } else { "240" };
            let (status, said) = server
                .post(
                    "task-executor",
                    &format!("/execute?wait={wait}"),
                    &json!({"taskName": task}),
                )
                .await;
            assert!(status.is_success(), "{said}");
        }
    }
    let suspended = r#"tasker_runs{status="suspended"}"#;
    let text = scrape_until(&server, "task-executor", |text| {
        look(text, suspended).is_some_and(|count| count > 0.5)
    })
    .await;
    for (name, expected) in [
        (suspended, 1.0),
        (r#"tasker_runs{status="queued"}"#, 0.0),
        (r#"tasker_runs{status="processing"}"#, 0.0),
        (r#"tasker_runs{status="blocked"}"#, 0.0),
        (r#"tasker_runs_ended_total{status="completed"}"#, 3.0),
        (r#"tasker_runs_ended_total{status="failed"}"#, 2.0),
        (r#"tasker_runs_ended_total{status="cancelled"}"#, 0.0),
        (r#"tasker_ready{kind="frame"}"#, 0.0),
        (r#"tasker_ready{kind="call"}"#, 0.0),
        (r#"tasker_calls_total{outcome="answered"}"#, 0.0),
        (r#"tasker_calls_total{outcome="failed"}"#, 2.0),
        ("tasker_calls_in_flight", 0.0),
        ("tasker_oldest_ready_seconds", 0.0),
        ("tasker_runs_submitted_total", 6.0),
        ("tasker_storage_up", 1.0),
        // A run that nests: two turns of the parent and one of the child; one that fails: two; one that sleeps: one.
        ("tasker_turns_total", 3.0 * 3.0 + 2.0 * 2.0 + 1.0),
    ] {
        let found = value(&text, name);
        assert!((found - expected).abs() < 0.01, "{name}: {found}: {text}");
    }
    assert!(text.trim_end().ends_with("# EOF"), "{text}");
    assert_eq!(text.matches("# EOF").count(), 1);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(
            line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(),
            "{line}"
        );
    }
}

#[tokio::test]
async fn what_waits_and_is_blocked_is_counted_whoever_works_on_it() {
    let folder = folder();
    let ids: Vec<String> = (0..2).map(|_| folder.ok(&["run", "works"])).collect();
    let services = "task-executor,simple-stack-processor";
    let server = Server::start(&folder, &["--drive", "post", "--services", services], &[]);
    let queued = r#"tasker_runs{status="queued"}"#;
    let text = scrape_until(&server, "simple-stack-processor", |text| {
        look(text, queued).is_some()
    })
    .await;
    assert!((value(&text, queued) - 2.0).abs() < 0.01, "{text}");
    assert!(
        (value(&text, r#"tasker_ready{kind="frame"}"#) - 2.0).abs() < 0.01,
        "{text}"
    );
    assert!(value(&text, "tasker_oldest_ready_seconds") > 0.0, "{text}");
    // The version of a run that is gone blocks it.
    let file =
        tasker_adaptor_sqlite::rusqlite::Connection::open(folder.path().join("tasker.db")).unwrap();
    file.execute_batch(
        "PRAGMA foreign_keys = OFF; DELETE FROM task_functions WHERE name = 'works'",
    )
    .unwrap();
    for _ in &ids {
        let step = json!({"trigger": "process-next"});
        server.post("simple-stack-processor", "/", &step).await;
    }
    let text = scrape_until(&server, "task-executor", |text| {
        look(text, queued).is_some_and(|count| count < 0.5)
    })
    .await;
    assert!(
        (value(&text, r#"tasker_runs{status="blocked"}"#) - 2.0).abs() < 0.01,
        "{text}"
    );
    assert!(
        (value(&text, r#"tasker_ready{kind="frame"}"#)).abs() < 0.01,
        "{text}"
    );
}
