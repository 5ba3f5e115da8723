//! What Prometheus reads at `/metrics`: counts of requests, and what the engines did and hold.
//!
//! Paths are those of the routes (`/runs/{id}/events`), never what callers wrote, so that their number is bounded.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tasker_core::Engine;

use super::engine_metrics::{self, LastBacklog};

/// What `Content-Type` the text has.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bounds of the buckets of durations, in seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    service: String,
    method: String,
    path: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Place {
    service: String,
    path: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfService {
    service: String,
}

/// The counts of a server. Cheap to clone; the clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<Request, Counter>,
    durations: Family<Place, Histogram, fn() -> Histogram>,
    in_flight: Family<OfService, Gauge>,
    submitted: Counter,
    connections: Gauge,
    up: Family<OfService, Gauge>,
    engines: Arc<Mutex<Vec<Engine>>>,
    backlog: Arc<LastBacklog>,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tasker");
        let requests = Family::default();
        let durations = Family::new_with_constructor(histogram as fn() -> Histogram);
        let in_flight = Family::default();
        let submitted = Counter::default();
        let connections = Gauge::default();
        let up = Family::default();
        registry.register(
            "build",
            "The program",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register("http_requests", "Requests answered", requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "How long answers took, until their body began",
            durations.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "Requests under way",
            in_flight.clone(),
        );
        registry.register("http_connections", "Open connections", connections.clone());
        registry.register(
            "runs_submitted",
            "Submits that were accepted over HTTP",
            submitted.clone(),
        );
        registry.register(
            "service_up",
            "Whether a service of the folder answers",
            up.clone(),
        );
        Self {
            registry: Arc::new(registry),
            requests,
            durations,
            in_flight,
            submitted,
            connections,
            up,
            engines: Arc::default(),
            backlog: Arc::default(),
        }
    }
}

impl Metrics {
    /// Shows from now on what this engine did and holds too, and what its storage has open. The routers do so with the engine
    /// that they are given, unless there is one already. The engine lives as long as these counts do.
    pub fn observe(&self, engine: &Engine) {
        self.engines().push(engine.clone());
    }

    pub(super) fn observe_unless_any(&self, engine: &Engine) {
        let mut engines = self.engines();
        if engines.is_empty() {
            engines.push(engine.clone());
        }
    }

    fn engines(&self) -> std::sync::MutexGuard<'_, Vec<Engine>> {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text that Prometheus reads.
    pub async fn text(&self) -> String {
        let engines = self.engines().clone();
        let of_engines = engine_metrics::registry(&engines, &self.backlog).await;
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode_registry(&mut text, &of_engines);
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Says whether a service of the folder answers.
    pub fn service_is_up(&self, service: &str, up: bool) {
        let labels = OfService {
            service: service.to_owned(),
        };
        self.up.get_or_create(&labels).set(i64::from(up));
    }

    pub(super) fn submitted(&self) {
        self.submitted.inc();
    }

    /// Counts a connection until the answer is dropped.
    pub(super) fn connection(&self) -> Counted {
        Counted::new(self.connections.clone())
    }

    /// Counts a request under way until the answer is dropped.
    pub(super) fn request(&self, service: &str) -> Counted {
        let labels = OfService {
            service: service.to_owned(),
        };
        Counted::new(self.in_flight.get_or_create(&labels).clone())
    }

    pub(super) fn answered(
        &self,
        service: &str,
        method: &str,
        path: &str,
        status: u16,
        took: Duration,
    ) {
        let place = Place {
            service: service.to_owned(),
            path: path.to_owned(),
        };
        self.durations
            .get_or_create(&place)
            .observe(took.as_secs_f64());
        let request = Request {
            service: place.service,
            method: method.to_owned(),
            path: place.path,
            status,
        };
        self.requests.get_or_create(&request).inc();
    }
}

/// One of a gauge, while it lives.
#[derive(Debug)]
pub(super) struct Counted(Gauge<i64, AtomicI64>);

impl Counted {
    fn new(gauge: Gauge<i64, AtomicI64>) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_counted_by_route_and_status() {
        let metrics = Metrics::default();
        let under_way = metrics.request("task-executor");
        metrics.answered(
            "task-executor",
            "GET",
            "/list",
            200,
            Duration::from_millis(3),
        );
        let text = metrics.text().await;
        assert!(
            text.contains(r#"tasker_http_requests_total{service="task-executor",method="GET",path="/list",status="200"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"tasker_http_requests_in_flight{service="task-executor"} 1"#),
            "{text}"
        );
        drop(under_way);
        assert!(
            metrics
                .text()
                .await
                .contains(r#"tasker_http_requests_in_flight{service="task-executor"} 0"#)
        );
        assert!(
            text.contains("tasker_http_request_duration_seconds_bucket"),
            "{text}"
        );
    }
}
