//! The keystore: secrets by namespace and key, sealed at rest in the keystore table of any storage adaptor.
//!
//! Register it with `private_service`: other services read their credentials from it host-side, and a task needs a
//! grant of its own (what a granted task reads stands in its journal, as every result does).
//! Without a master key it starts, answers `getServerTime` and `listNamespaces`, and refuses the rest.

mod arguments;
mod seal;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::json;
use tasker_core::Json;
use tasker_core::adaptor::{KeyStore, SealedValue, StorageError};
use tasker_core::service::{
    Health, MethodDescription, MethodPolicy, RetryPolicy, ServiceCall, ServiceDescription,
    ServiceError, ServiceProxy,
};

pub use seal::{BadMasterKey, MasterKey};

use crate::{Clock, Secret, system_clock};

/// The environment variable that [`Keystore::master_key_from_env`] reads.
pub const MASTER_KEY_VARIABLE: &str = "TASKER_MASTER_KEY";

/// Master keys as a host keeps them (a KMS, a vault). Asked at each call: cache what is dear.
#[async_trait]
pub trait MasterKeys: Send + Sync + 'static {
    /// The key that seals; `None`: there is none yet.
    async fn current(&self) -> Result<Option<MasterKey>, ServiceError>;

    /// A key by its id, for values sealed before a rotation. `None`: it is not known.
    async fn by_id(&self, id: &str) -> Result<Option<MasterKey>, ServiceError>;
}

/// Master keys in memory: the current one and those before it.
struct Fixed {
    current: Option<MasterKey>,
    previous: Vec<MasterKey>,
}

#[async_trait]
impl MasterKeys for Fixed {
    async fn current(&self) -> Result<Option<MasterKey>, ServiceError> {
        Ok(self.current.clone())
    }

    async fn by_id(&self, id: &str) -> Result<Option<MasterKey>, ServiceError> {
        let keys = self.current.iter().chain(&self.previous);
        Ok(keys.into_iter().find(|key| key.id() == id).cloned())
    }
}

/// The keystore service.
#[derive(Clone)]
pub struct Keystore {
    store: Arc<dyn KeyStore>,
    keys: Arc<dyn MasterKeys>,
    clock: Clock,
}

/// What a rotation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotated {
    /// Values sealed again under the current key.
    pub resealed: usize,
    /// Values that were under it already.
    pub current: usize,
    /// Values that somebody changed or removed at the same time; a new value is under the current key anyway.
    pub changed: usize,
}

impl Keystore {
    /// A keystore on this storage with these master keys: the one that seals (`None`: it refuses to read and write),
    /// and those that sealed before.
    pub fn new(
        store: Arc<dyn KeyStore>,
        current: Option<MasterKey>,
        previous: Vec<MasterKey>,
    ) -> Self {
        Self::with_keys(store, Arc::new(Fixed { current, previous }))
    }

    /// A keystore whose master keys the host keeps.
    pub fn with_keys(store: Arc<dyn KeyStore>, keys: Arc<dyn MasterKeys>) -> Self {
        Self {
            store,
            keys,
            clock: system_clock(),
        }
    }

    /// Sets the clock. Default: the system's.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The master key in `TASKER_MASTER_KEY`; `None` when it is not set.
    ///
    /// # Errors
    /// When it is set and no key.
    pub fn master_key_from_env() -> Result<Option<MasterKey>, BadMasterKey> {
        let text = Secret::from_env(MASTER_KEY_VARIABLE);
        text.map(|text| MasterKey::parse(&text)).transpose()
    }

    /// The master key in a file.
    ///
    /// # Errors
    /// `CONFIGURATION_ERROR` naming the file when it cannot be read or holds no key.
    pub fn master_key_from_file(path: impl AsRef<Path>) -> Result<MasterKey, ServiceError> {
        let path = path.as_ref();
        let wrong = |text: String| {
            ServiceError::configuration(format!("the master key in {}: {text}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        MasterKey::parse(&Secret::new(text)).map_err(|error| wrong(error.to_string()))
    }

    /// Seals every value again that is not under the current master key. May run while the keystore is used; run it
    /// again until [`Rotated::resealed`] is 0, then take the old key away.
    ///
    /// # Errors
    /// `CONFIGURATION_ERROR` when a key is missing, `INTERNAL_ERROR` when a value does not open or storage fails. What
    /// was sealed until then stays so.
    pub async fn rotate(&self) -> Result<Rotated, ServiceError> {
        let current = self.current().await?;
        let mut rotated = Rotated::default();
        for namespace in self.store.sealed_namespaces().await.map_err(storage)? {
            for key in self.store.sealed_keys(&namespace).await.map_err(storage)? {
                let Some(old) = self.store.sealed(&namespace, &key).await.map_err(storage)? else {
                    rotated.changed += 1;
                    continue;
                };
                if old.key_id == current.id() {
                    rotated.current += 1;
                    continue;
                }
                let value = self.open(&namespace, &key, &old).await?;
                let new = SealedValue {
                    bytes: current.seal(&namespace, &key, value.expose()),
                    key_id: current.id().to_owned(),
                    updated_at: old.updated_at,
                };
                let replaced = self.store.replace_sealed(&namespace, &key, &old.bytes, new);
                if replaced.await.map_err(storage)? {
                    rotated.resealed += 1;
                } else {
                    rotated.changed += 1;
                }
            }
        }
        Ok(rotated)
    }

    async fn current(&self) -> Result<MasterKey, ServiceError> {
        self.keys.current().await?.ok_or_else(|| {
            ServiceError::configuration(format!(
                "the keystore has no master key; set {MASTER_KEY_VARIABLE} to 32 random bytes in base64 (openssl rand -base64 32) and start again"
            ))
        })
    }

    async fn open(
        &self,
        namespace: &str,
        key: &str,
        sealed: &SealedValue,
    ) -> Result<Secret, ServiceError> {
        let master = self.keys.by_id(&sealed.key_id).await?.ok_or_else(|| {
            ServiceError::configuration(format!(
                "the value of {key:?} in {namespace:?} is sealed with the master key {}, which this keystore does not have; give it as a previous key, or set the value again",
                sealed.key_id
            ))
            .with_code("WRONG_MASTER_KEY")
        })?;
        master.open(namespace, key, &sealed.bytes).map_err(|_| {
            ServiceError::internal(format!(
                "the value of {key:?} in {namespace:?} does not open: its row was changed or comes from another key; set the value again"
            ))
            .with_code("VALUE_TAMPERED")
        })
    }

    /// The namespaces that hold keys, when the rule for two strings needs them.
    async fn holds(&self, call: &ServiceCall, names: usize) -> Result<Vec<String>, ServiceError> {
        if call.args().len() == names {
            self.store.sealed_namespaces().await.map_err(storage)
        } else {
            Ok(Vec::new())
        }
    }

    async fn get(&self, call: &ServiceCall) -> Result<Option<Secret>, ServiceError> {
        self.current().await?;
        let holds = self.holds(call, 2).await?;
        let (place, _) = arguments::place(call, false, &holds)?;
        let sealed = self.store.sealed(&place.namespace, &place.key);
        match sealed.await.map_err(storage)? {
            Some(sealed) => {
                let value = self.open(&place.namespace, &place.key, &sealed).await?;
                Ok(Some(value))
            }
            None => Ok(None),
        }
    }

    async fn set(&self, call: &ServiceCall) -> Result<bool, ServiceError> {
        let current = self.current().await?;
        let holds = self.holds(call, 3).await?;
        let (place, value) = arguments::place(call, true, &holds)?;
        let value = value.unwrap_or_default();
        let sealed = SealedValue {
            bytes: current.seal(&place.namespace, &place.key, &value),
            key_id: current.id().to_owned(),
            updated_at: (self.clock)(),
        };
        let put = self.store.put_sealed(&place.namespace, &place.key, sealed);
        put.await.map_err(storage)?;
        Ok(true)
    }

    async fn delete(&self, call: &ServiceCall) -> Result<bool, ServiceError> {
        self.current().await?;
        let holds = self.holds(call, 2).await?;
        let (place, _) = arguments::place(call, false, &holds)?;
        let deleted = self.store.delete_sealed(&place.namespace, &place.key);
        deleted.await.map_err(storage)
    }

    async fn has(&self, call: &ServiceCall) -> Result<bool, ServiceError> {
        self.current().await?;
        let holds = self.holds(call, 2).await?;
        let (place, _) = arguments::place(call, false, &holds)?;
        let sealed = self.store.sealed(&place.namespace, &place.key);
        Ok(sealed.await.map_err(storage)?.is_some())
    }

    async fn keys(&self, call: &ServiceCall) -> Result<Vec<String>, ServiceError> {
        self.current().await?;
        let namespace = arguments::only_namespace(call)?;
        self.store.sealed_keys(&namespace).await.map_err(storage)
    }
}

#[async_trait]
impl ServiceProxy for Keystore {
    fn describe(&self) -> ServiceDescription {
        let text = || schema(&json!({"type": "string"}));
        let boolean = || schema(&json!({"type": "boolean"}));
        let texts = || schema(&json!({"type": "array", "items": {"type": "string"}}));
        let place = |method: MethodDescription| method.arg(text()).arg(text());
        ServiceDescription::new("keystore")
            .describe("Secrets by namespace and key, sealed at rest")
            .policy(MethodPolicy {
                retry: Some(RetryPolicy::attempts(3)),
                timeout_ms: Some(30_000),
                ..MethodPolicy::default()
            })
            .method(
                place(MethodDescription::new("getKey"))
                    .describe("The value of (namespace, key), or null")
                    .result(schema(&json!({"type": ["string", "null"]}))),
            )
            .method(
                place(MethodDescription::new("setKey"))
                    .arg(text())
                    .describe("Sets (namespace, key, value)")
                    .result(boolean()),
            )
            .method(
                place(MethodDescription::new("deleteKey"))
                    .describe("Removes (namespace, key); whether it was there")
                    .result(boolean()),
            )
            .method(
                MethodDescription::new("listKeys")
                    .arg(text())
                    .describe("Keys of a namespace")
                    .result(texts()),
            )
            .method(
                place(MethodDescription::new("hasKey"))
                    .describe("Whether (namespace, key) is set")
                    .result(boolean()),
            )
            .method(
                MethodDescription::new("listNamespaces")
                    .describe("Namespaces that hold keys")
                    .result(texts()),
            )
            .method(
                MethodDescription::new("getServerTime")
                    .describe("The time of the keystore")
                    .result(schema(&json!({
                        "type": "object",
                        "properties": {"timestamp": {"type": "string"}, "source": {"type": "string"}},
                    }))),
            )
    }

    async fn call(&self, call: ServiceCall) -> Result<Json, ServiceError> {
        match call.method().as_str() {
            "getKey" => answer(&self.get(&call).await?.as_ref().map(Secret::expose)),
            "setKey" => answer(&self.set(&call).await?),
            "deleteKey" => answer(&self.delete(&call).await?),
            "hasKey" => answer(&self.has(&call).await?),
            "listKeys" => answer(&self.keys(&call).await?),
            "listNamespaces" => answer(&self.store.sealed_namespaces().await.map_err(storage)?),
            "getServerTime" => answer(&json!({
                "timestamp": (self.clock)().to_string(),
                "source": "keystore",
            })),
            other => Err(ServiceError::not_found(format!(
                "the keystore has no method {other:?}; it has getKey, setKey, deleteKey, listKeys, hasKey, listNamespaces, getServerTime"
            ))),
        }
    }

    async fn health(&self) -> Health {
        if let Err(error) = self.store.sealed_namespaces().await {
            return Health::Unhealthy(format!("its storage does not answer: {error}"));
        }
        match self.current().await {
            Ok(_) => Health::Healthy,
            Err(error) => Health::Degraded(error.message),
        }
    }
}

fn answer<T: Serialize>(value: &T) -> Result<Json, ServiceError> {
    Json::from(value).map_err(ServiceError::internal)
}

fn schema(value: &serde_json::Value) -> Json {
    Json::from(value).unwrap_or_default()
}

fn storage(error: StorageError) -> ServiceError {
    if error.is_retryable() {
        ServiceError::external(error)
    } else {
        ServiceError::internal(error)
    }
}

#[cfg(test)]
#[path = "keystore_tests.rs"]
mod tests;
