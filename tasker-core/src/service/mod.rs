//! Services: what a task may call, implemented in the host.
//!
//! What is here: the [`ServiceProxy`] trait, calls and their chains, the ten error types, policies, the registry.
//! What is not: which task may call what (the engine decides), and when a call is asked (the run machine).

mod call;
mod describe;
mod error;
mod policy;
mod proxy;
mod registry;

pub use call::{Link, ServiceCall};
pub use describe::{MethodDescription, ServiceDescription, ServiceStyle};
pub use error::{ServiceError, ServiceErrorType};
pub use policy::{MethodPolicy, ResolvedPolicy, RetryPolicy, UnknownOutcome};
pub use proxy::{Health, Reconciled, ServiceProxy};
pub use registry::Services;
