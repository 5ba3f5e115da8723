//! Tasker on a real PostgreSQL server. `.config/postgres.sh run` starts one; without it every test fails and says so.

#[cfg(test)]
mod conflicts;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod exact;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod held;
#[cfg(test)]
mod hints;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod locks;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod model;
#[cfg(test)]
mod pooler;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod submit_in;
#[cfg(test)]
mod submits;
#[cfg(test)]
mod tls;
