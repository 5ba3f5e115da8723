//! Servers on the loopback interface that behave as providers document, with a ledger of what they were sent.
//!
//! They live in the example's own process, so that they survive the children that it kills.

pub mod blog;
pub mod ledger;
pub mod workspace;

use axum::Router;
use tokio::net::TcpListener;

/// Serves on a free loopback port until the process ends; the address as `http://127.0.0.1:PORT`.
///
/// # Errors
/// When no port can be had.
pub async fn serve(router: Router) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}
