//! `tasker keystore`: secrets, which never pass through arguments.

use std::io::{IsTerminal, Read};

use serde_json::json;
use tasker_core::{Json, Services};

use super::Here;
use crate::args::Keystore;
use crate::error::CliError;
use crate::host;

/// Does it.
pub(super) async fn perform(here: &Here, what: Keystore) -> Result<(), CliError> {
    let keystore = host::keystore(&here.config, host::storage(&here.config).await?)?;
    let services = Services::builder().add_private(keystore.clone()).build()?;
    match what {
        Keystore::Set { key, namespace } => {
            let value = value(&key)?;
            crate::secrets::hide(&value);
            services
                .call::<bool>("keystore", "setKey", &texts(&[&namespace, &key, &value])?)
                .await?;
            here.output.answer(
                &json!({ "namespace": namespace, "key": key, "set": true }),
                || format!("{key} is set in {namespace}"),
            )
        }
        Keystore::Get { key, namespace } => {
            let value: Option<String> = services
                .call("keystore", "getKey", &texts(&[&namespace, &key])?)
                .await?;
            let Some(value) = value else {
                return Err(no_such_key(&namespace, &key));
            };
            here.output.answer(
                &json!({ "namespace": namespace, "key": key, "value": value }),
                || value.clone(),
            )
        }
        Keystore::Delete { key, namespace } => {
            let deleted: bool = services
                .call("keystore", "deleteKey", &texts(&[&namespace, &key])?)
                .await?;
            if !deleted {
                return Err(no_such_key(&namespace, &key));
            }
            here.output.answer(
                &json!({ "namespace": namespace, "key": key, "deleted": true }),
                || format!("{key} is deleted from {namespace}"),
            )
        }
        Keystore::List { namespace } => {
            let namespaces = match namespace {
                Some(namespace) => vec![namespace],
                None => services.call("keystore", "listNamespaces", &[]).await?,
            };
            let mut keys = Vec::new();
            for namespace in namespaces {
                let found: Vec<String> = services
                    .call("keystore", "listKeys", &texts(&[&namespace])?)
                    .await?;
                keys.extend(found.into_iter().map(|key| (namespace.clone(), key)));
            }
            if keys.is_empty() {
                here.output
                    .note("there are no keys; set one with: tasker keystore set KEY");
            }
            let values: Vec<serde_json::Value> = keys
                .iter()
                .map(|(namespace, key)| json!({ "namespace": namespace, "key": key }))
                .collect();
            here.output.answer(&values, || {
                keys.iter()
                    .map(|(namespace, key)| format!("{namespace}/{key}"))
                    .collect::<Vec<String>>()
                    .join("\n")
            })
        }
        Keystore::Rotate => {
            let rotated = keystore.rotate().await?;
            let answer = json!({ "resealed": rotated.resealed, "current": rotated.current, "changed": rotated.changed });
            here.output.answer(&answer, || {
                format!(
                    "{} sealed again, {} were under the current key, {} changed meanwhile{}",
                    rotated.resealed,
                    rotated.current,
                    rotated.changed,
                    if rotated.resealed > 0 {
                        "; run it again until none is sealed again, then drop the previous key"
                    } else {
                        ""
                    }
                )
            })
        }
    }
}

fn no_such_key(namespace: &str, key: &str) -> CliError {
    CliError::NotThere(format!(
        "there is no key {key:?} in {namespace:?}; see: tasker keystore list"
    ))
}

fn texts(values: &[&str]) -> Result<Vec<Json>, CliError> {
    values
        .iter()
        .map(|value| Json::from(value).map_err(|error| CliError::Usage(error.to_string())))
        .collect()
}

/// The value: typed without an echo, or all of standard input without its last line end.
fn value(key: &str) -> Result<String, CliError> {
    if std::io::stdin().is_terminal() {
        return rpassword::prompt_password(format!("value of {key}: ")).map_err(CliError::io(
            "the value could not be read from the terminal",
        ));
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(CliError::io("standard input could not be read"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(CliError::Usage(
            "standard input was empty: pipe the value in".to_owned(),
        ));
    }
    Ok(text.to_owned())
}
