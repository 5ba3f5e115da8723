//! The services of an engine, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ServiceCall, ServiceDescription, ServiceProxy};

/// The services of an engine. Cheap to clone.
#[derive(Clone, Default)]
pub struct Services {
    registry: Arc<BTreeMap<String, Registered>>,
    /// The call on whose behalf others are called; `None` for the host itself.
    caller: Option<Box<ServiceCall>>,
}

struct Registered {
    proxy: Arc<dyn ServiceProxy>,
    description: Arc<ServiceDescription>,
    /// Only tasks that were granted it may call it.
    private: bool,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.registry.keys()).finish()
    }
}

impl Services {
    pub(crate) fn for_call(&self, call: &ServiceCall) -> Self {
        Self {
            registry: Arc::clone(&self.registry),
            caller: Some(Box::new(call.clone())),
        }
    }
}
