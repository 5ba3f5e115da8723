//! Requests a second of the task executor beside a bare axum handler, in one run on loopback: `cargo bench -p tasker-cli --bench http`.
//!
//! Both are served by the same listener with the same time limits, so the difference is what Tasker does for a request: guard,
//! envelope, counts, and for `/execute` a durable row (SQLite, `synchronous=FULL`). The load comes from this process: a fixed
//! number of connections, each sending the next request when the last one is answered. That takes processor time from the server;
//! compare the lines with each other, not with figures from elsewhere. `-- --quick` runs each for a moment only;
//! `-- --bare ADDRESS` serves the bare handler alone, and prints where, for `.config/wrk.sh`.
#![expect(clippy::unwrap_used, reason = "a bench fails where it stands")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_cli::http::{ListenOptions, RouterOptions, serve, task_executor};
use tasker_core::Engine;
use tasker_core::wall::Wall;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const CONNECTIONS: [usize; 2] = [1, 64];
const LENGTH: Duration = Duration::from_secs(4);
const WARM_UP: Duration = Duration::from_millis(500);

fn main() {
    let quick = std::env::args().any(|word| word == "--quick" || word == "--test");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let bare = std::env::args().skip_while(|word| word != "--bare").nth(1);
    match bare {
        Some(address) => runtime.block_on(serve_bare(&address)),
        None => runtime.block_on(all(quick)),
    }
    runtime.shutdown_background();
}

/// What Tasker is compared with.
fn bare_handler() -> Router {
    Router::new()
        .route(
            "/health",
            get(async || Json(json!({ "status": "healthy" }))),
        )
        .route(
            "/execute",
            post(async |body: Bytes| {
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                Json(json!({ "taskRunId": body["taskName"] }))
            }),
        )
}

async fn serve_bare(address: &str) {
    let listener = TcpListener::bind(address).await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    serve(listener, bare_handler(), ListenOptions::default(), stop).await;
}

async fn all(quick: bool) {
    let stop = CancellationToken::new();
    let bare = listen(bare_handler(), &stop).await;
    let health = request("GET", "/health", "");
    let execute = request(
        "POST",
        "/execute",
        r#"{"taskName":"nothing","input":{"n":1}}"#,
    );
    let wait = request(
        "POST",
        "/execute?wait=30",
        r#"{"taskName":"nothing","input":{"n":1}}"#,
    );

    println!(
        "| request | connections | bare axum /s | p50 | p99 | tasker /s | p50 | p99 | share |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for connections in CONNECTIONS {
        for (name, ours, theirs) in [
            ("GET /health (reads the database)", &health, &health),
            ("POST /execute (202, durable)", &execute, &execute),
            ("POST /execute?wait (runs, durable)", &wait, &execute),
        ] {
            let length = if quick {
                Duration::from_millis(100)
            } else {
                LENGTH
            };
            let theirs = load(bare, theirs, connections, length).await;
            // Each on a database of its own: runs that were submitted and not waited for would stand before the next line's.
            let folder = tempfile::tempdir().unwrap();
            let engine = engine(folder.path()).await;
            let router = task_executor(engine.clone(), RouterOptions::default());
            let ours = load(listen(router, &stop).await, ours, connections, length).await;
            engine.abandon();
            println!(
                "| {name} | {connections} | {} | {} | {:.0} % |",
                theirs.shown(),
                ours.shown(),
                100.0 * ours.each_second / theirs.each_second
            );
        }
    }
    stop.cancel();
}

async fn engine(folder: &Path) -> Engine {
    let storage = SqliteStorage::open(folder.join("bench.db")).await.unwrap();
    let builder = Engine::builder().wall(Wall::in_process());
    let engine = builder.storage(storage).start().await.unwrap();
    engine
        .publish("/** @task nothing */ module.exports = async (input) => input;")
        .await
        .unwrap();
    engine
}

async fn listen(router: Router, stop: &CancellationToken) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(
        listener,
        router,
        ListenOptions::default(),
        stop.clone(),
    ));
    address
}

fn request(method: &str, path: &str, body: &str) -> Arc<[u8]> {
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    text.into_bytes().into()
}

struct Figures {
    each_second: f64,
    p50: Duration,
    p99: Duration,
}

impl Figures {
    fn shown(&self) -> String {
        let micros = |time: Duration| format!("{} µs", time.as_micros());
        format!(
            "{:.0} | {} | {}",
            self.each_second,
            micros(self.p50),
            micros(self.p99)
        )
    }
}

async fn load(
    address: std::net::SocketAddr,
    request: &Arc<[u8]>,
    connections: usize,
    length: Duration,
) -> Figures {
    let counts = Arc::new(AtomicBool::new(false));
    let over = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..connections)
        .map(|_| {
            let (request, counts, over) =
                (Arc::clone(request), Arc::clone(&counts), Arc::clone(&over));
            tokio::spawn(send(address, request, counts, over))
        })
        .collect();
    tokio::time::sleep(WARM_UP.min(length)).await;
    counts.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    tokio::time::sleep(length).await;
    counts.store(false, Ordering::Relaxed);
    let took = begun.elapsed();
    over.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for sender in senders {
        times.extend(sender.await.unwrap());
    }
    times.sort_unstable();
    assert!(!times.is_empty(), "nothing was answered in {length:?}");
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Figures {
        each_second: times.len() as f64 / took.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
    }
}

/// Sends the request again and again on one connection. Answers how long those took that were counted.
async fn send(
    address: std::net::SocketAddr,
    request: Arc<[u8]>,
    counts: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = Vec::with_capacity(4_096);
    let mut times = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        stream.write_all(&request).await.unwrap();
        answer(&mut stream, &mut buffer).await;
        if counts.load(Ordering::Relaxed) {
            times.push(begun.elapsed());
        }
    }
    times
}

/// Reads one answer to its end.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) {
    buffer.clear();
    loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = std::str::from_utf8(&buffer[..end]).unwrap();
            assert!(head.starts_with("HTTP/1.1 20"), "{head}");
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap();
            if buffer.len() >= end + 4 + length.parse::<usize>().unwrap() {
                return;
            }
        }
        let read = stream.read_buf(buffer).await.unwrap();
        assert_ne!(
            read, 0,
            "the connection was closed in the middle of an answer"
        );
    }
}
