//! How a registry of services is filled and checked.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use tasker_adaptor::Timestamp;

use super::registry::{Clock, Registered, Services};
use super::{MethodPolicy, ServiceProxy};

/// Names that no service may have: they are members of `context` or words of the engine's own rows.
pub const RESERVED_NAMES: [&str; 13] = [
    "catch",
    "finally",
    "log",
    "run",
    "signal",
    "sleep",
    "task",
    "tasks",
    "then",
    "timer",
    "toJSON",
    "tools",
    "withPolicy",
];

/// Why a registry cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServicesError {
    /// A name that tasks could not write.
    #[error(
        "{0:?} cannot be the name of a service: it begins with a letter and goes on with letters, digits, _ and -"
    )]
    BadName(String),
    /// One of [`RESERVED_NAMES`].
    #[error(
        "{0:?} cannot be the name of a service: tasks find something else there; choose another name"
    )]
    ReservedName(String),
    /// Two services of one name.
    #[error("two services are named {0:?}; rename one of them")]
    DuplicateName(String),
    /// Two methods of one name.
    #[error("service {service:?} describes its method {method:?} twice; remove one of them")]
    DuplicateMethod {
        /// The service.
        service: String,
        /// The method.
        method: String,
    },
    /// Configuration of a service that is not there.
    #[error("{what} names the service {service:?}, which is not registered{}", near(.nearest.as_deref()))]
    UnknownService {
        /// What names it.
        what: &'static str,
        /// The service.
        service: String,
        /// What is like it.
        nearest: Option<String>,
    },
    /// A service that is its own fallback.
    #[error("service {0:?} is named as its own fallback; name another one")]
    FallbackToItself(String),
}

fn near(name: Option<&str>) -> String {
    name.map(|name| format!("; did you mean {name:?}?"))
        .unwrap_or_default()
}

/// Fills a registry of services. What is wrong comes to light in [`ServicesBuilder::build`].
#[derive(Default)]
pub struct ServicesBuilder {
    proxies: Vec<(Arc<dyn ServiceProxy>, bool)>,
    policies: Vec<(String, Option<String>, MethodPolicy)>,
    fallbacks: Vec<(String, String)>,
    clock: Option<Clock>,
}

impl ServicesBuilder {
    /// Adds a service that every task may call.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "nobody takes this for a sum")]
    pub fn add(mut self, proxy: impl ServiceProxy) -> Self {
        self.proxies.push((Arc::new(proxy), false));
        self
    }

    /// Adds a service that only tasks may call which were granted it, and other services.
    #[must_use]
    pub fn add_private(mut self, proxy: impl ServiceProxy) -> Self {
        self.proxies.push((Arc::new(proxy), true));
        self
    }

    /// Sets what the description leaves to the engine or says otherwise: of a whole service, or of one method (dotted).
    /// A later one of the same place wins where it says something.
    #[must_use]
    pub fn override_policy(
        mut self,
        service: impl Into<String>,
        method: Option<&str>,
        policy: MethodPolicy,
    ) -> Self {
        self.policies
            .push((service.into(), method.map(str::to_owned), policy));
        self
    }

    /// Names the service that is asked when this one is unhealthy, or answered `EXTERNAL_SERVICE_ERROR` or
    /// `TIMEOUT_ERROR`. The first may have done its work all the same: name a fallback only where doing it twice is harmless.
    #[must_use]
    pub fn fallback(mut self, service: impl Into<String>, other: impl Into<String>) -> Self {
        self.fallbacks.push((service.into(), other.into()));
        self
    }

    /// Sets the clock. Default: the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Fn() -> Timestamp + Send + Sync>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Asks each service for its description and checks everything.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn build(self) -> Result<Services, ServicesError> {
        let mut services: BTreeMap<String, Registered> = BTreeMap::new();
        for (proxy, private) in self.proxies {
            let description = proxy.describe();
            let name = description.name.clone();
            check_name(&name)?;
            let mut methods: Vec<&str> = description.methods.iter().map(|m| &*m.name).collect();
            methods.sort_unstable();
            if let Some(twice) = methods.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(ServicesError::DuplicateMethod {
                    service: name,
                    method: twice[0].to_owned(),
                });
            }
            match services.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(Registered::new(proxy, description, private));
                }
                Entry::Occupied(entry) => {
                    return Err(ServicesError::DuplicateName(entry.key().clone()));
                }
            }
        }
        for (service, method, policy) in self.policies {
            let registered = find(&mut services, &service, "a policy")?;
            let place = match method {
                None => &mut registered.policy,
                Some(method) => registered.method_policies.entry(method).or_default(),
            };
            *place = policy.over(place);
        }
        for (service, other) in self.fallbacks {
            if service == other {
                return Err(ServicesError::FallbackToItself(service));
            }
            find(&mut services, &other, "a fallback")?;
            find(&mut services, &service, "a fallback")?.fallback = Some(other);
        }
        let clock = self.clock.unwrap_or_else(|| Arc::new(system_clock));
        Ok(Services::new(services, clock))
    }
}

fn check_name(name: &str) -> Result<(), ServicesError> {
    let mut letters = name.chars();
    let good = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !good {
        return Err(ServicesError::BadName(name.to_owned()));
    }
    if RESERVED_NAMES.contains(&name) {
        return Err(ServicesError::ReservedName(name.to_owned()));
    }
    Ok(())
}

fn find<'a>(
    services: &'a mut BTreeMap<String, Registered>,
    name: &str,
    what: &'static str,
) -> Result<&'a mut Registered, ServicesError> {
    let nearest = super::registry::nearest(name, services.keys().map(String::as_str));
    let nearest = nearest.map(str::to_owned);
    services
        .get_mut(name)
        .ok_or_else(|| ServicesError::UnknownService {
            what,
            service: name.to_owned(),
            nearest,
        })
}

#[expect(
    clippy::disallowed_methods,
    reason = "services without an engine have no other clock; an engine gives its own"
)]
fn system_clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::from_millis(since.map_or(0, |since| since.as_millis() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{MethodDescription, Service, ServiceCall, service_fn};
    use tasker_adaptor::Json;

    fn named(name: &str) -> impl ServiceProxy {
        service_fn(name, async |_: ServiceCall| Ok(Json::null()))
    }

    struct Twice;

    #[async_trait::async_trait]
    impl ServiceProxy for Twice {
        fn describe(&self) -> crate::service::ServiceDescription {
            crate::service::ServiceDescription::new("twice")
                .method(MethodDescription::new("a"))
                .method(MethodDescription::new("b"))
                .method(MethodDescription::new("a"))
        }

        async fn call(&self, _: ServiceCall) -> Result<Json, crate::service::ServiceError> {
            Ok(Json::null())
        }
    }

    #[test]
    fn names_are_checked() {
        for name in ["a", "gapi", "my-service_2"] {
            assert!(
                Services::builder().add(named(name)).build().is_ok(),
                "{name}"
            );
        }
        for name in ["", "2a", "_a", "a.b", "a b", "é"] {
            let error = Services::builder().add(named(name)).build().unwrap_err();
            assert_eq!(error, ServicesError::BadName(name.to_owned()));
        }
        for name in RESERVED_NAMES {
            let error = Services::builder().add(named(name)).build().unwrap_err();
            assert_eq!(error, ServicesError::ReservedName(name.to_owned()));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let error = |builder: ServicesBuilder| builder.build().unwrap_err().to_string();
        assert_eq!(
            error(Services::builder().add(named("a")).add_private(named("a"))),
            r#"two services are named "a"; rename one of them"#
        );
        assert_eq!(
            error(Services::builder().add(Twice)),
            r#"service "twice" describes its method "a" twice; remove one of them"#
        );
        assert_eq!(
            error(
                Services::builder()
                    .add(named("search"))
                    .fallback("search", "serch2")
            ),
            r#"a fallback names the service "serch2", which is not registered; did you mean "search"?"#
        );
        assert_eq!(
            error(Services::builder().add(named("a")).fallback("a", "a")),
            r#"service "a" is named as its own fallback; name another one"#
        );
        assert!(
            error(Services::builder().override_policy("zzz", None, MethodPolicy::default()))
                .starts_with(r#"a policy names the service "zzz", which is not registered"#)
        );
    }

    #[test]
    fn a_typed_service_with_a_method_given_twice_keeps_the_last() {
        let service = Service::new("s")
            .method("a", async |_, (): ()| Ok(1))
            .method("a", async |_, (): ()| Ok(2));
        assert!(Services::builder().add(service).build().is_ok());
    }
}
