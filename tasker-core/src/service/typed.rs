//! Services written in place: typed methods as async closures, or one function for everything.
//!
//! How the positional arguments of a call become the one argument `A` of a method:
//!
//! | arguments | `A` is read from |
//! |---|---|
//! | none | `null` (so `()` and `Option<T>`), else `[]` (a struct whose members all have defaults) |
//! | one | that value, else the array of it (so a tuple of one) |
//! | more | the array of them (so a tuple) |
//!
//! Optional arguments at the end are read by hand: take `A = Json` and ask [`ServiceCall::arg`].

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tasker_adaptor::Json;

use super::chain;
use super::{
    MethodDescription, MethodPolicy, ServiceCall, ServiceDescription, ServiceError, ServiceProxy,
};

/// What a typed method is given besides its argument.
#[derive(Debug)]
pub struct Call<S> {
    /// State of the service.
    pub state: Arc<S>,
    /// The call itself: run, idempotency key, deadline, other services.
    pub call: ServiceCall,
}

type Method<S> =
    Box<dyn Fn(Call<S>) -> BoxFuture<'static, Result<Json, ServiceError>> + Send + Sync>;

/// A service made of typed methods.
///
/// ```
/// use serde::Deserialize;
/// use tasker_core::service::{Service, ServiceError};
///
/// #[derive(Deserialize)]
/// struct Find {
///     id: u32,
/// }
///
/// let names = vec!["Ada", "Grace"];
/// let service = Service::with_state("people", names)
///     .describe("People by number")
///     .method("find", async |c, find: Find| {
///         c.state
///             .get(find.id as usize)
///             .copied()
///             .ok_or_else(|| ServiceError::not_found(format!("nobody has number {}", find.id)))
///     })
///     .method("add", async |_, (a, b): (i64, i64)| Ok(a + b));
/// # let _ = service;
/// ```
pub struct Service<S = ()> {
    state: Arc<S>,
    description: ServiceDescription,
    methods: BTreeMap<String, Method<S>>,
}

impl Service {
    /// A service without state.
    pub fn new(name: impl Into<String>) -> Self {
        Self::with_state(name, ())
    }
}

impl<S: Send + Sync + 'static> Service<S> {
    /// A service whose methods share this state.
    pub fn with_state(name: impl Into<String>, state: S) -> Self {
        Self {
            state: Arc::new(state),
            description: ServiceDescription::new(name),
            methods: BTreeMap::new(),
        }
    }

    /// Sets the text for people.
    #[must_use]
    pub fn describe(mut self, text: impl Into<String>) -> Self {
        self.description.description = text.into();
        self
    }

    /// Adds a method (dotted names are fine); the last one of a name counts.
    #[must_use]
    pub fn method<A, T, F, Fut>(mut self, name: impl Into<String>, function: F) -> Self
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Fn(Call<S>, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, ServiceError>> + Send + 'static,
    {
        let name = name.into();
        self.entry(&name);
        self.methods.insert(
            name,
            Box::new(move |call| {
                let argument = match argument::<A>(&call.call) {
                    Ok(argument) => argument,
                    Err(error) => return futures::future::ready(Err(error)).boxed(),
                };
                let (service, method) = (Arc::clone(&call.call.service), call.call.method());
                let answer = function(call, argument);
                async move {
                    let value = answer.await?;
                    Json::from(&value).map_err(|error| {
                        ServiceError::internal(format!(
                            "{service}.{method} answered a value that JSON cannot hold: {error}"
                        ))
                    })
                }
                .boxed()
            }),
        );
        self
    }

    /// [`Service::method`] that also describes itself: the JSON Schemas of its arguments and result come from the types.
    #[cfg(feature = "schemars")]
    #[must_use]
    pub fn described_method<A, T, F, Fut>(self, name: impl Into<String>, function: F) -> Self
    where
        A: DeserializeOwned + schemars::JsonSchema,
        T: Serialize + schemars::JsonSchema,
        F: Fn(Call<S>, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, ServiceError>> + Send + 'static,
    {
        let name = name.into();
        let mut service = self.method(name.clone(), function);
        let entry = service.entry(&name);
        entry.args = schema::arguments::<A>();
        entry.result = Some(schema::of::<T>());
        service
    }

    /// Says what a method is, with JSON Schemas of its arguments and result. Its policy stays when the text names none.
    #[must_use]
    pub fn describe_method(mut self, method: MethodDescription) -> Self {
        let entry = self.entry(&method.name);
        let policy = method.policy.over(&entry.policy);
        *entry = MethodDescription { policy, ..method };
        self
    }

    /// Sets the policy of a method.
    #[must_use]
    pub fn policy(mut self, method: &str, policy: MethodPolicy) -> Self {
        self.entry(method).policy = policy;
        self
    }

    /// Sets the policy of methods that name none of their own.
    #[must_use]
    pub fn default_policy(mut self, policy: MethodPolicy) -> Self {
        self.description.policy = policy;
        self
    }

    fn entry(&mut self, name: &str) -> &mut MethodDescription {
        let methods = &mut self.description.methods;
        let index = methods
            .iter()
            .position(|method| method.name == name)
            .unwrap_or_else(|| {
                methods.push(MethodDescription::new(name));
                methods.len() - 1
            });
        &mut methods[index]
    }
}

#[cfg(feature = "schemars")]
mod schema {
    //! JSON Schemas of Rust types, by the argument rule of this file.

    use schemars::{JsonSchema, SchemaGenerator};
    use tasker_adaptor::Json;

    pub(super) fn of<T: JsonSchema>() -> Json {
        Json::from(&SchemaGenerator::default().into_root_schema_for::<T>()).unwrap_or_default()
    }

    /// One schema a positional argument: a tuple's members, none for `()`, else the type's own.
    pub(super) fn arguments<A: JsonSchema>() -> Vec<Json> {
        let schema = SchemaGenerator::default().into_root_schema_for::<A>();
        let Some(members) = schema.get("prefixItems").and_then(|items| items.as_array()) else {
            let none = schema.get("type").and_then(|word| word.as_str()) == Some("null");
            return if none { Vec::new() } else { vec![of::<A>()] };
        };
        // What members refer to stands in the whole schema; each gets it along.
        let shared = schema.get("$defs");
        let with_shared = members.iter().map(|member| {
            let mut member = member.clone();
            if let (Some(shared), Some(object)) = (shared, member.as_object_mut()) {
                object.insert("$defs".to_owned(), shared.clone());
            }
            Json::from(&member).unwrap_or_default()
        });
        with_shared.collect()
    }
}

#[async_trait]
impl<S: Send + Sync + 'static> ServiceProxy for Service<S> {
    fn describe(&self) -> ServiceDescription {
        self.description.clone()
    }

    async fn call(&self, call: ServiceCall) -> Result<Json, ServiceError> {
        let name = call.method();
        let Some(method) = self.methods.get(&name) else {
            return Err(ServiceError::not_found(format!(
                "service {} describes a method {name} and has no function for it; add one with Service::method",
                call.service
            )));
        };
        method(Call {
            state: Arc::clone(&self.state),
            call,
        })
        .await
    }
}

fn argument<A: DeserializeOwned>(call: &ServiceCall) -> Result<A, ServiceError> {
    let all = || chain::array(call.args());
    let (first, second) = match call.args() {
        [] => (Json::null(), Some(all())),
        [one] => (one.clone(), Some(all())),
        _ => (all(), None),
    };
    first.to().or_else(|error| {
        second.and_then(|json| json.to().ok()).ok_or_else(|| {
            ServiceError::validation(format!(
                "{}.{}: the arguments are not as expected: {error}",
                call.service,
                call.method()
            ))
        })
    })
}

/// A service of one function that is given every call, whatever its method (see [`ServiceDescription::open`]).
///
/// ```
/// use tasker_core::Json;
/// use tasker_core::service::{ServiceCall, service_fn};
///
/// let echo = service_fn("echo", async |call: ServiceCall| {
///     Ok(call.args().first().cloned().unwrap_or_else(Json::null))
/// });
/// # let _ = echo;
/// ```
pub fn service_fn<F, Fut>(name: impl Into<String>, function: F) -> impl ServiceProxy
where
    F: Fn(ServiceCall) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Json, ServiceError>> + Send + 'static,
{
    ServiceFn {
        name: name.into(),
        function,
    }
}

struct ServiceFn<F> {
    name: String,
    function: F,
}

#[async_trait]
impl<F, Fut> ServiceProxy for ServiceFn<F>
where
    F: Fn(ServiceCall) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Json, ServiceError>> + Send + 'static,
{
    fn describe(&self) -> ServiceDescription {
        ServiceDescription::new(&self.name).open()
    }

    async fn call(&self, call: ServiceCall) -> Result<Json, ServiceError> {
        (self.function)(call).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use serde::Deserialize;

    use super::*;
    use crate::service::ServiceErrorType;

    #[derive(Debug, Default, Deserialize, Serialize, PartialEq)]
    #[serde(default)]
    struct Options {
        limit: u32,
    }

    fn json(text: &str) -> Json {
        Json::parse(text).unwrap()
    }

    fn call(method: &str, args: &[&str]) -> ServiceCall {
        ServiceCall::test("s", method, args.iter().map(|text| json(text)).collect())
    }

    #[tokio::test]
    async fn arguments_follow_the_rule() {
        let service = Service::new("s")
            .method("unit", async |_, (): ()| Ok("unit"))
            .method("option", async |_, a: Option<u32>| Ok(a))
            .method("defaults", async |_, a: Options| Ok(a))
            .method("one", async |_, a: String| Ok(a))
            .method("one_tuple", async |_, (a,): (String,)| Ok(a))
            .method("two", async |_, (a, b): (String, u32)| {
                Ok(format!("{a}{b}"))
            })
            .method("list", async |_, a: Vec<u32>| Ok(a))
            .method("raw", async |c, _: Json| c.call.arg::<Option<u32>>(1));
        for (method, args, answer) in [
            ("unit", &[][..], r#""unit""#),
            ("option", &[], "null"),
            ("option", &["7"], "7"),
            ("defaults", &[], r#"{"limit":0}"#),
            ("defaults", &[r#"{"limit":3}"#], r#"{"limit":3}"#),
            ("one", &[r#""a""#], r#""a""#),
            ("one_tuple", &[r#""a""#], r#""a""#),
            ("two", &[r#""a""#, "1"], r#""a1""#),
            ("list", &["[1,2]"], "[1,2]"),
            ("list", &["1", "2"], "[1,2]"),
            ("raw", &[r#""a""#], "null"),
            ("raw", &[r#""a""#, "5"], "5"),
        ] {
            let result = service.call(call(method, args)).await;
            assert_eq!(result.unwrap(), json(answer), "{method} {args:?}");
        }
        let error = service.call(call("one", &["1"])).await.unwrap_err();
        assert_eq!(error.kind, ServiceErrorType::Validation);
        assert!(
            error
                .message
                .starts_with("s.one: the arguments are not as expected: ")
        );
        let error = service.call(call("two", &[r#""a""#])).await.unwrap_err();
        assert_eq!(error.kind, ServiceErrorType::Validation);
    }

    #[tokio::test]
    async fn methods_share_the_state_and_the_description_lists_them() {
        let service = Service::with_state("s", AtomicU32::new(0))
            .describe("Counts")
            .method("next", async |c, (): ()| {
                Ok(c.state.fetch_add(1, Ordering::Relaxed))
            })
            .policy(
                "next",
                MethodPolicy {
                    timeout_ms: Some(5),
                    ..MethodPolicy::default()
                },
            )
            .describe_method(MethodDescription::new("next").describe("The next number"));
        service.call(call("next", &[])).await.unwrap();
        assert_eq!(service.call(call("next", &[])).await.unwrap(), json("1"));
        let described = ServiceProxy::describe(&service);
        assert_eq!(described.description, "Counts");
        assert!(!described.open);
        let method = described.find("next").unwrap();
        assert_eq!(method.description, "The next number");
        assert_eq!(method.policy.timeout_ms, Some(5));
    }

    #[tokio::test]
    async fn one_function_can_be_a_service() {
        let service = service_fn("s", async |call: ServiceCall| {
            Ok(Json::from(&call.method()).unwrap())
        });
        assert!(ServiceProxy::describe(&service).open);
        assert_eq!(
            service.call(call("a.b", &[])).await.unwrap(),
            json(r#""a.b""#)
        );
    }

    #[cfg(feature = "schemars")]
    #[test]
    fn types_describe_a_method() {
        #[derive(Deserialize, schemars::JsonSchema)]
        #[expect(dead_code, reason = "only its schema is read")]
        struct Find {
            id: u32,
        }
        let service = Service::new("s")
            .described_method("none", async |_, (): ()| Ok(1))
            .described_method("one", async |_, _: Find| Ok("a"))
            .described_method("two", async |_, (_, b): (Find, String)| Ok(b));
        let described = ServiceProxy::describe(&service);
        let args = |name| {
            let args = &described.find(name).unwrap().args;
            args.iter().map(Json::text).collect::<Vec<_>>().join(" ; ")
        };
        assert_eq!(args("none"), "");
        assert!(
            args("one").contains(r#""id":{"type":"integer""#),
            "{}",
            args("one")
        );
        let two = args("two");
        assert!(two.contains(r##""$ref":"#/$defs/Find""##), "{two}");
        assert!(two.contains(r#""$defs":{"Find""#), "{two}");
        let result = described.find("two").unwrap().result.clone().unwrap();
        assert!(result.text().contains(r#""type":"string""#));
    }
}
