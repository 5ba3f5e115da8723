//! Log cursors: a line committed later never lies at or before a cursor given out.

use tasker_adaptor::{LogCursor, LogLevel, LogLine, Logs as _};

use crate::kit::{NOW, TestSchema, begin, until_blocked, worker};

fn line(text: String) -> LogLine {
    LogLine {
        level: LogLevel::Info,
        message: text,
        data: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_that_follows_many_writers_sees_every_line_once() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let worker = worker(&storage).await;
    let run = begin(&storage, worker).await.run;
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            let storage = storage.clone();
            tokio::spawn(async move {
                for number in 0..40 {
                    let lines = vec![
                        line(format!("{writer} {number} a")),
                        line(format!("{writer} {number} b")),
                    ];
                    storage.append_logs(run, None, lines, NOW).await.unwrap();
                }
            })
        })
        .collect();
    let mut cursor = LogCursor::default();
    let mut seen = Vec::new();
    while seen.len() < 6 * 40 * 2 {
        let page = storage.logs(run, cursor, 7).await.unwrap();
        seen.extend(page.lines.into_iter().map(|line| line.line.message));
        cursor = page.next;
        let done = writers.iter().all(tokio::task::JoinHandle::is_finished);
        if done && storage.logs(run, cursor, 1).await.unwrap().lines.is_empty() {
            break;
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(seen.len(), 6 * 40 * 2);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 6 * 40 * 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_waits_for_the_one_that_was_begun_before_it() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let worker = worker(&storage).await;
    let run = begin(&storage, worker).await.run;
    let mut other = schema.client().await;
    let watcher = schema.client().await;
    let slow = other.transaction().await.unwrap();
    slow.execute(
        "SELECT 1 FROM task_runs WHERE id = $1 FOR NO KEY UPDATE",
        &[&run.as_uuid()],
    )
    .await
    .unwrap();
    slow.execute(
        "INSERT INTO log_lines (task_run_id, cursor, time, level, message) VALUES ($1, 1, 0, 'info', 'slow')",
        &[&run.as_uuid()],
    )
    .await
    .unwrap();
    let writer = storage.clone();
    let fast = tokio::spawn(async move {
        writer
            .append_logs(run, None, vec![line("fast".to_owned())], NOW)
            .await
    });
    until_blocked(&watcher, &schema.name, 1).await;
    assert!(
        storage
            .logs(run, LogCursor::default(), 10)
            .await
            .unwrap()
            .lines
            .is_empty()
    );
    slow.commit().await.unwrap();
    fast.await.unwrap().unwrap();
    let lines = storage
        .logs(run, LogCursor::default(), 10)
        .await
        .unwrap()
        .lines;
    let texts: Vec<_> = lines
        .iter()
        .map(|line| line.line.message.as_str())
        .collect();
    assert_eq!(texts, ["slow", "fast"]);
}
