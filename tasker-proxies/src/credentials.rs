//! Where services find their credentials: given by the host, else in the keystore, host-side.

use tasker_core::Json;
use tasker_core::service::{ServiceCall, ServiceError};

use crate::Secret;

/// The secret called `name`: `given` by the host, else `global/name` of the keystore. Asked anew at each call, so that a
/// key that was changed is used at once.
///
/// # Errors
/// `CONFIGURATION_ERROR` that says which key to set and how.
pub(crate) async fn find(
    call: &ServiceCall,
    given: Option<&Secret>,
    name: &str,
) -> Result<Secret, ServiceError> {
    if let Some(secret) = given {
        return Ok(secret.clone());
    }
    let missing = |why: &str| {
        ServiceError::configuration(format!(
            "{} has no {name}{why}; set the environment variable {name} before the engine starts, or put it into the keystore: setKey(\"global\", \"{name}\", …)",
            call.service
        ))
        .with_code("MISSING_CREDENTIALS")
    };
    let arguments = ["global", name].map(|text| Json::from(text).unwrap_or_default());
    let found = call
        .services()
        .call::<Option<String>>("keystore", "getKey", &arguments)
        .await;
    match found {
        Ok(Some(text)) if !text.trim().is_empty() => Ok(Secret::new(text)),
        Ok(_) => Err(missing("")),
        Err(error) if error.code() == "UNKNOWN_SERVICE" => {
            Err(missing(" and there is no keystore"))
        }
        Err(error) if error.kind.is_transient() => Err(error),
        Err(error) => Err(missing(&format!(
            ", and the keystore refused: {}",
            error.message
        ))),
    }
}
