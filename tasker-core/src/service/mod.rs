//! Services: what a task may call, implemented in the host.
//!
//! What is here: the [`ServiceProxy`] trait, calls and their chains, the ten error types, policies, the registry,
//! services written in place ([`Service`], [`service_fn`]), recorded and wire forms.
//! What is not: which task may call what (the engine decides), and when a call is asked (the run machine).

mod builder;
mod call;
mod call_log;
#[cfg(feature = "quickjs")]
mod call_policy;
pub mod chain;
mod describe;
mod error;
mod policy;
mod proxy;
mod registry;
mod typed;
pub mod wire;

pub use builder::{RESERVED_NAMES, ServicesBuilder, ServicesError};
pub use call::{Link, ServiceCall};
#[cfg(feature = "quickjs")]
pub(crate) use call_log::CallLog;
#[cfg(feature = "quickjs")]
pub(crate) use call_policy::CallPolicy;
pub use describe::{MethodDescription, ServiceDescription, ServiceStyle};
pub use error::{ServiceError, ServiceErrorType};
pub use policy::{MethodPolicy, ResolvedPolicy, RetryPolicy, UnknownOutcome};
pub use proxy::{Health, Reconciled, ServiceProxy};
pub use registry::Services;
#[cfg(feature = "quickjs")]
pub(crate) use registry::nearest_words;
pub use typed::{Call, Service, service_fn};
