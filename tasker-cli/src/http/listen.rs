//! A listener and its connections: how long a sender may take, how many there may be, and how they end.
//!
//! HTTP/1.1. A connection whose next request's headers are not there in time is closed, whether it sends slowly or nothing:
//! that is the idle timeout too. When `stop` fires, idle connections are closed and requests under way are answered.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::metrics::Metrics;

/// Wait after an accept that failed (no file handles left, say).
const BREATH: Duration = Duration::from_millis(100);

/// Bounds of a listener.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// How long the headers of the next request may take, and how long a connection may be idle. Default 10 s.
    pub header_timeout: Duration,
    /// Connections at one time; others wait to be accepted. Default 1024.
    pub max_connections: usize,
    /// Counts connections.
    pub metrics: Metrics,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            max_connections: 1024,
            metrics: Metrics::default(),
        }
    }
}

/// Serves until `stop` fires and all requests under way are answered. Dropped before that, it cuts them off.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: ListenOptions,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(options.max_connections));
    let connections = TaskTracker::new();
    let cut_off = CancellationToken::new();
    let _cut_off_when_dropped = cut_off.clone().drop_guard();
    loop {
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let counted = options.metrics.connection();
        let connection = attend(stream, router.clone(), options.header_timeout, stop.clone());
        let cut_off = cut_off.clone();
        connections.spawn(async move {
            let (_permit, _counted) = (permit, counted);
            tokio::select! {
                () = connection => {}
                () = cut_off.cancelled() => {}
            }
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn attend(
    stream: TcpStream,
    router: Router,
    header_timeout: Duration,
    stop: CancellationToken,
) {
    // Small answers leave at once; a stream that cannot be set so is served all the same.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
