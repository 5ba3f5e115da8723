//! Services for Tasker, each an implementation of [`tasker_core::service::ServiceProxy`] behind a feature of its own.
//!
//! What they have in common: one HTTP client with bounds on time and size, retries only where they are safe, and
//! errors that hold no secret. What they are not: none reads a task's grants (the engine does), none keeps state that
//! a run depends on.
//!
//! Invariants: a secret is a [`Secret`] from the moment it is read and never reaches an error, a log line or a panic ·
//! a request is sent as the task wrote it, nothing is added to its meaning · time comes from a [`Clock`].

mod clock;
#[cfg(any(
    feature = "gapi",
    feature = "openai",
    feature = "supabase",
    feature = "websearch"
))]
mod credentials;
#[cfg(any(feature = "gapi", feature = "supabase"))]
mod entries;
#[cfg(feature = "gapi")]
pub mod gapi;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "_http")]
pub mod http_client;
#[cfg(feature = "keystore")]
pub mod keystore;
#[cfg(test)]
#[cfg(all(
    feature = "gapi",
    feature = "keystore",
    feature = "openai",
    feature = "supabase",
    feature = "websearch"
))]
mod missing_credentials_tests;
#[cfg(feature = "openai")]
pub mod openai;
#[cfg(test)]
#[cfg(all(feature = "gapi", feature = "openai", feature = "supabase"))]
mod oracle;
#[cfg(feature = "remote")]
pub mod remote;
mod secret;
#[cfg(feature = "supabase")]
pub mod supabase;
#[cfg(test)]
#[cfg(feature = "_http")]
mod testing;
#[cfg(feature = "websearch")]
pub mod websearch;

pub use clock::{Clock, system_clock};
pub use secret::Secret;
