//! What the engines of a server did and hold, and what their storage has open, for Prometheus.
//!
//! Runs that ended are counted by the engines since they started: counting them in storage would cost more the longer the history.
//! What is open is counted in storage, whoever works on it, bounded in number and in time; when storage does not answer, those
//! gauges are left out and `tasker_storage_up` is 0.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tasker_core::adaptor::Backlog;
use tasker_core::{Engine, EngineStats, RunStatus};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// How long a count of what is open is good: all ports of a server are asked at about the same time.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// How long storage may take to count.
const PATIENCE: Duration = Duration::from_secs(4);

/// What was last counted, and when.
#[derive(Debug, Default)]
pub(super) struct LastBacklog(Mutex<Option<(Instant, Option<Backlog>)>>);

impl LastBacklog {
    /// What is open; `None` when storage does not say. Those who ask at the same time share one question.
    async fn of(&self, engine: &Engine) -> Option<Backlog> {
        let mut last = self.0.lock().await;
        if let Some((at, backlog)) = &*last
            && at.elapsed() < GOOD_FOR
        {
            return backlog.clone();
        }
        let backlog = match timeout(PATIENCE, engine.backlog()).await {
            Ok(Ok(backlog)) => Some(backlog),
            Ok(Err(error)) => {
                tracing::warn!(%error, "what is open could not be counted for /metrics");
                None
            }
            Err(_) => {
                tracing::warn!("storage took too long to count what is open for /metrics");
                None
            }
        };
        *last = Some((Instant::now(), backlog.clone()));
        backlog
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Status {
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// What stands before the counts of requests: nothing where there is no engine.
pub(super) async fn registry(engines: &[Engine], last: &LastBacklog) -> Registry {
    let mut registry = Registry::with_prefix("tasker");
    let Some(first) = engines.first() else {
        return registry;
    };
    let backlog = last.of(first).await;
    let complains = engines
        .iter()
        .any(|engine| engine.health().storage.is_some());
    gauge(
        &mut registry,
        "storage_up",
        "Whether the database answers",
        u64::from(backlog.is_some() && !complains),
    );
    if let Some(backlog) = backlog {
        open(&mut registry, &backlog);
    }
    let stats: Vec<EngineStats> = engines.iter().map(Engine::stats).collect();
    done(&mut registry, &stats);
    registry
}

/// What storage has open, whoever works on it.
fn open(registry: &mut Registry, backlog: &Backlog) {
    let runs = Family::<Status, Gauge>::default();
    for (status, count) in &backlog.runs {
        let status = status.as_str();
        runs.get_or_create(&Status { status }).set(*count as i64);
    }
    registry.register("runs", "Open runs in the database, up to 100000", runs);
    let ready = Family::<Kind, Gauge>::default();
    for (kind, count) in [
        ("frame", backlog.ready_frames),
        ("call", backlog.ready_calls),
    ] {
        ready.get_or_create(&Kind { kind }).set(count as i64);
    }
    registry.register(
        "ready",
        "Frames and calls in the database that wait for a worker, up to 100000",
        ready,
    );
    let age = backlog.oldest_ready.map_or(0, |since| {
        let millis = backlog.at.millis_since(since);
        millis.max(0)
    });
    let seconds = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
    seconds.set(age as f64 / 1_000.0);
    registry.register(
        "oldest_ready_seconds",
        "How long the oldest of those waits, 0 when there is none",
        seconds,
    );
}

/// What the engines of this process did since they started, and what they hold.
fn done(registry: &mut Registry, stats: &[EngineStats]) {
    let sum = |of: fn(&EngineStats) -> u64| stats.iter().map(of).sum::<u64>();
    gauge(
        registry,
        "hot_frames",
        "Frames whose VM is in memory",
        sum(|stats| stats.hot_frames),
    );
    gauge(
        registry,
        "calls_in_flight",
        "Calls that are being asked",
        sum(|stats| stats.calls_in_flight),
    );
    let turns = Counter::<u64>::default();
    turns.inc_by(sum(|stats| stats.turns));
    registry.register("turns", "Turns that were committed", turns);
    let calls = Family::<Outcome, Counter>::default();
    for (outcome, count) in [
        ("answered", sum(|stats| stats.calls_answered)),
        ("failed", sum(|stats| stats.calls_failed)),
        ("unknown", sum(|stats| stats.calls_unknown)),
    ] {
        calls.get_or_create(&Outcome { outcome }).inc_by(count);
    }
    registry.register("calls", "Attempts at calls, by how they ended", calls);
    let ended = Family::<Status, Counter>::default();
    for (status, count) in [
        (RunStatus::Completed, sum(|stats| stats.runs_completed)),
        (RunStatus::Failed, sum(|stats| stats.runs_failed)),
        (RunStatus::Cancelled, sum(|stats| stats.runs_cancelled)),
    ] {
        let status = status.as_str();
        ended.get_or_create(&Status { status }).inc_by(count);
    }
    registry.register("runs_ended", "Runs that ended in this process", ended);
    let blocked = Counter::<u64>::default();
    blocked.inc_by(sum(|stats| stats.runs_blocked));
    registry.register(
        "runs_blocked",
        "Times that a run was blocked in this process",
        blocked,
    );
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(value as i64);
    registry.register(name, help, gauge);
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use tasker_adaptor::{FaultAction, FaultStorage};
    use tasker_core::MemoryStorage;

    use super::*;

    async fn text(engines: &[Engine]) -> String {
        let mut text = String::new();
        encode(&mut text, &registry(engines, &LastBacklog::default()).await).unwrap();
        text
    }

    #[tokio::test]
    async fn a_database_that_does_not_answer_is_said_and_its_gauges_are_left_out() {
        let storage = FaultStorage::new(MemoryStorage::new(), |_| FaultAction::Pass);
        let control = storage.control().clone();
        let engine = Engine::builder().storage(storage).client().await.unwrap();
        let engines = [engine];
        let up = text(&engines).await;
        assert!(up.contains("tasker_storage_up 1"), "{up}");
        assert!(up.contains(r#"tasker_runs{status="queued"} 0"#), "{up}");
        control.on_call(|_| FaultAction::FailBefore);
        let down = text(&engines).await;
        assert!(down.contains("tasker_storage_up 0"), "{down}");
        assert!(!down.contains("tasker_runs{"), "{down}");
        assert!(down.contains("tasker_turns_total 0"), "{down}");
    }

    #[tokio::test]
    async fn ports_that_are_asked_together_share_one_count() {
        let storage = FaultStorage::new(MemoryStorage::new(), |_| FaultAction::Pass);
        let control = storage.control().clone();
        let engine = [Engine::builder().storage(storage).client().await.unwrap()];
        let last = LastBacklog::default();
        for _ in 0..9 {
            registry(&engine, &last).await;
        }
        let methods = control.methods();
        let counted = methods.iter().filter(|method| **method == "backlog");
        assert_eq!(counted.count(), 1);
    }
}
