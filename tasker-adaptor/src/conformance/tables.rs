//! Tasks, log lines, sealed values, hints.

use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _};

use super::kit::{CaseResult, Kit, json, log_line};
use crate::{
    Hint, LogCursor, NewTask, Published, SealedValue, StorageError, TaskName, TaskVersion,
    TurnCommit,
};

fn task(name: &str, version: &str) -> NewTask {
    NewTask {
        name: TaskName::new(name),
        version: TaskVersion::new(version),
        source: format!("module.exports = () => '{version}' // \u{0} ü"),
        modules: Some(json(r#"{"b.js":"1","a.js":"2"}"#)),
        schema: json(r#"{"z":1.0,"a":null}"#),
        options: json("{}"),
    }
}

/// The same version again changes nothing; the same version with other content is a conflict.
pub async fn publish_is_idempotent(kit: Arc<Kit>) -> CaseResult {
    let new = task("a", "v1");
    assert_eq!(
        kit.storage().publish(new.clone(), kit.now()).await?,
        Published::Created
    );
    let stored = kit
        .storage()
        .task(&new.name, None)
        .await?
        .expect("published");
    assert_eq!(
        (&stored.source, &stored.modules),
        (&new.source, &new.modules)
    );
    assert_eq!(
        (&stored.schema, &stored.options),
        (&new.schema, &new.options)
    );
    assert_eq!(
        (stored.created_at, stored.published_at),
        (kit.now(), kit.now())
    );
    kit.advance(10);
    assert_eq!(
        kit.storage().publish(new.clone(), kit.now()).await?,
        Published::Unchanged
    );
    assert_eq!(kit.storage().task(&new.name, None).await?, Some(stored));
    let other = NewTask {
        source: "other".to_owned(),
        ..new.clone()
    };
    let conflict = kit.storage().publish(other, kit.now()).await;
    assert!(
        matches!(conflict, Err(StorageError::VersionConflict { .. })),
        "{conflict:?}"
    );
    Ok(())
}

/// The version published last is the current one, also when it was there before, and at the same millisecond.
pub async fn publish_moves_the_current_version(kit: Arc<Kit>) -> CaseResult {
    let (one, two) = (task("a", "v1"), task("a", "v2"));
    let current = async || -> Result<Option<String>, StorageError> {
        let task = kit.storage().task(&TaskName::new("a"), None).await?;
        Ok(task.map(|task| task.version.as_str().to_owned()))
    };
    assert_eq!(current().await?, None);
    kit.storage().publish(one.clone(), kit.now()).await?;
    assert_eq!(
        kit.storage().publish(two, kit.now()).await?,
        Published::Created
    );
    assert_eq!(current().await?.as_deref(), Some("v2"));
    assert_eq!(
        kit.storage().publish(one.clone(), kit.now()).await?,
        Published::Restored
    );
    assert_eq!(current().await?.as_deref(), Some("v1"));
    let stored = kit
        .storage()
        .task(&one.name, Some(&one.version))
        .await?
        .expect("published");
    assert_eq!(stored.created_at, kit.now());
    assert_eq!(
        stored.published_at,
        kit.now().plus_millis(2),
        "after the newest of its name"
    );
    let missing = TaskVersion::new("v3");
    assert!(
        kit.storage()
            .task(&one.name, Some(&missing))
            .await?
            .is_none()
    );
    Ok(())
}

/// Tasks are listed by name, in pages, each with its current version.
pub async fn tasks_are_listed_in_pages(kit: Arc<Kit>) -> CaseResult {
    for (name, version) in [("c", "1"), ("a", "1"), ("b", "1"), ("a", "2"), ("Z", "1")] {
        kit.storage()
            .publish(task(name, version), kit.now())
            .await?;
    }
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = kit.storage().tasks(after.as_ref(), 3).await?;
        assert!(page.tasks.len() <= 3);
        listed.extend(
            page.tasks
                .into_iter()
                .map(|task| format!("{}@{}", task.name, task.version)),
        );
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, ["Z@1", "a@2", "b@1", "c@1"], "in byte order");
    Ok(())
}

/// Lines of turns and of the engine are read in the order in which they came, after a cursor.
pub async fn logs_read_in_order(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let held = kit.begin(worker).await?;
    kit.storage()
        .append_logs(held.run, None, vec![log_line("0")], kit.now())
        .await?;
    let time = kit.advance(5);
    kit.applied(TurnCommit {
        logs: vec![log_line("1"), log_line("2")],
        made: kit.calls(1, true),
        ..kit.turn(held)
    })
    .await?;
    let first = kit
        .storage()
        .logs(held.run, LogCursor::default(), 2)
        .await?;
    let texts: Vec<_> = first
        .lines
        .iter()
        .map(|line| line.line.message.as_str())
        .collect();
    assert_eq!(texts, ["0", "1"]);
    assert_eq!(
        (first.lines[0].frame, first.lines[1].frame),
        (None, Some(held.frame))
    );
    assert_eq!(first.lines[1].time, time);
    assert_eq!(first.lines[1].line, log_line("1"), "level and data too");
    let other = kit.begin(worker).await?;
    kit.storage()
        .append_logs(other.run, None, vec![log_line("x")], kit.now())
        .await?;
    let frame = Some(held.frame);
    kit.storage()
        .append_logs(held.run, frame, vec![log_line("3")], kit.now())
        .await?;
    let rest = kit.storage().logs(held.run, first.next, 10).await?;
    let texts: Vec<_> = rest
        .lines
        .iter()
        .map(|line| line.line.message.as_str())
        .collect();
    assert_eq!(texts, ["2", "3"]);
    let end = kit.storage().logs(held.run, rest.next, 10).await?;
    assert_eq!(
        (end.lines.len(), end.next),
        (0, rest.next),
        "the cursor stays at the end"
    );
    let nowhere = kit
        .storage()
        .append_logs(kit.run_id(), None, vec![log_line("x")], kit.now())
        .await;
    assert!(
        matches!(nowhere, Err(StorageError::NotFound { .. })),
        "{nowhere:?}"
    );
    Ok(())
}

fn sealed(byte: u8) -> SealedValue {
    SealedValue {
        bytes: vec![byte, 0, 255],
        key_id: format!("key-{byte}"),
        updated_at: crate::Timestamp::from_millis(i64::from(byte)),
    }
}

/// Values are set, replaced, read and removed.
pub async fn keystore_round_trip(kit: Arc<Kit>) -> CaseResult {
    let store = kit.storage();
    assert_eq!(store.sealed("ns", "k").await?, None);
    store.put_sealed("ns", "k", sealed(1)).await?;
    store.put_sealed("other", "k", sealed(9)).await?;
    assert_eq!(store.sealed("ns", "k").await?, Some(sealed(1)));
    store.put_sealed("ns", "k", sealed(2)).await?;
    assert_eq!(store.sealed("ns", "k").await?, Some(sealed(2)));
    assert!(store.delete_sealed("ns", "k").await?);
    assert!(!store.delete_sealed("ns", "k").await?);
    assert_eq!(store.sealed("ns", "k").await?, None);
    assert_eq!(store.sealed("other", "k").await?, Some(sealed(9)));
    Ok(())
}

/// A value is replaced only if it is still what the caller read.
pub async fn keystore_replace_is_compare_and_set(kit: Arc<Kit>) -> CaseResult {
    let store = kit.storage();
    assert!(
        !store.replace_sealed("ns", "k", &[], sealed(1)).await?,
        "there is none"
    );
    assert_eq!(store.sealed("ns", "k").await?, None);
    store.put_sealed("ns", "k", sealed(1)).await?;
    assert!(
        !store
            .replace_sealed("ns", "k", &sealed(2).bytes, sealed(3))
            .await?
    );
    assert_eq!(store.sealed("ns", "k").await?, Some(sealed(1)));
    assert!(
        store
            .replace_sealed("ns", "k", &sealed(1).bytes, sealed(3))
            .await?
    );
    assert_eq!(store.sealed("ns", "k").await?, Some(sealed(3)));
    Ok(())
}

/// Keys and namespaces are listed in byte order.
pub async fn keystore_lists(kit: Arc<Kit>) -> CaseResult {
    let store = kit.storage();
    for (namespace, key) in [("b", "y"), ("b", "ä"), ("a", "k"), ("b", "Z"), ("c", "k")] {
        store.put_sealed(namespace, key, sealed(1)).await?;
    }
    assert_eq!(store.sealed_keys("b").await?, ["Z", "y", "ä"]);
    assert!(store.sealed_keys("none").await?.is_empty());
    store.delete_sealed("c", "k").await?;
    assert_eq!(store.sealed_namespaces().await?, ["a", "b"]);
    Ok(())
}

/// Who watches is told of work, ends and cancels: a hint for each, or `Any` for what was too much.
pub async fn watch_hints_at_work_and_ends(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let mut hints = kit.storage().watch();
    let (_, root) = kit.submit().await?;
    wait_for(&kit, &mut hints, |hint| matches!(hint, Hint::Work)).await?;
    let held = kit.take(worker, root).await?;
    let (parent, calls) = kit.make(held, kit.calls(1, true)).await?;
    while hints.next().now_or_never().flatten().is_some() {}
    kit.settled(calls[0]).await?;
    wait_for(&kit, &mut hints, |hint| matches!(hint, Hint::Work)).await?;
    kit.applied(kit.last_turn(parent)).await?;
    wait_for(&kit, &mut hints, |hint| *hint == Hint::Ended(parent.run)).await?;
    let (cancelled, _) = kit.submit().await?;
    kit.storage().cancel(cancelled, kit.now()).await?;
    wait_for(&kit, &mut hints, |hint| {
        *hint == Hint::Cancel(cancelled) || *hint == Hint::Ended(cancelled)
    })
    .await?;
    Ok(())
}

/// Reads hints until the one that is waited for, with reads of the store in between, so that a lost one ends in a message.
async fn wait_for(
    kit: &Kit,
    hints: &mut crate::Hints,
    is_it: impl Fn(&Hint) -> bool,
) -> CaseResult {
    for _ in 0..50_000 {
        match hints.next().now_or_never() {
            Some(Some(hint)) if is_it(&hint) || hint == Hint::Any => return Ok(()),
            Some(Some(_)) => {}
            Some(None) => panic!("the stream of hints ended while the store is open"),
            None => drop(kit.storage().next_due().await?),
        }
    }
    panic!("the hint did not come while the store answered 50,000 reads");
}
