//! Several engine processes on one database.

#[cfg(test)]
mod kit;
#[cfg(test)]
#[allow(dead_code, reason = "the adaptor's own tests use the rest of it")]
#[path = "../../../tasker-adaptor-postgres/tests/postgres/proxy.rs"]
mod proxy;
#[cfg(test)]
mod three;
