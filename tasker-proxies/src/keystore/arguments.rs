//! Which argument is the namespace: one rule for all methods.
//!
//! One string is a key in `global`. Of two strings the first is the namespace, unless only the second is `default`,
//! `global` or a namespace that holds keys: then they are (key, namespace), as the services document writes it. When
//! both are namespaces nobody can say which is meant, and `{namespace, key}` is asked for. `default` is `global`.

use serde::Deserialize;
use tasker_core::Json;
use tasker_core::service::{ServiceCall, ServiceError};

/// The namespace of keys that were given none.
pub(super) const GLOBAL: &str = "global";

/// A key and where it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) key: String,
}

/// `default` is another name of `global`.
pub(super) fn namespace(name: &str) -> &str {
    if name == "default" { GLOBAL } else { name }
}

/// The place that a call names, and the value when it sets one. `holds` are the namespaces that hold keys.
pub(super) fn place(
    call: &ServiceCall,
    with_value: bool,
    holds: &[String],
) -> Result<(Place, Option<String>), ServiceError> {
    let wrong =
        |text: &str| ServiceError::validation(format!("keystore.{}: {text}", call.method()));
    let usage = if with_value {
        "give (namespace, key, value), (key, value) or {namespace, key, value}, each a string"
    } else {
        "give (namespace, key), (key) or {namespace, key}, each a string"
    };
    if let [object] = call.args()
        && let Some(named) = Named::of(object)
    {
        let value = match (with_value, named.value) {
            (false, _) => None,
            (true, Some(value)) => Some(value),
            (true, None) => return Err(wrong(usage)),
        };
        let space = named.namespace.as_deref().unwrap_or(GLOBAL);
        return checked(space, &named.key, call).map(|place| (place, value));
    }
    let texts: Result<Vec<String>, _> = call.args().iter().map(Json::to::<String>).collect();
    let mut texts = texts.map_err(|_| wrong(usage))?;
    let value = if with_value { texts.pop() } else { None };
    let is_namespace =
        |name: &str| matches!(name, "default" | GLOBAL) || holds.iter().any(|held| held == name);
    let place = match texts.as_slice() {
        [key] => checked(GLOBAL, key, call)?,
        [first, second] => match (is_namespace(first), is_namespace(second)) {
            (true, true) => {
                return Err(wrong(&format!(
                    "both {first:?} and {second:?} are namespaces; say which is the key: {{namespace, key}}"
                )));
            }
            (false, true) => checked(second, first, call)?,
            (_, false) => checked(first, second, call)?,
        },
        _ => return Err(wrong(usage)),
    };
    if with_value && value.is_none() {
        return Err(wrong(usage));
    }
    Ok((place, value))
}

/// The namespace that a call names: a string, `{namespace}`, or nothing for `global`.
pub(super) fn only_namespace(call: &ServiceCall) -> Result<String, ServiceError> {
    #[derive(Deserialize)]
    struct Only {
        namespace: Option<String>,
    }
    let name = match call.args() {
        [] => None,
        [one] if one.text().starts_with('{') => {
            one.to::<Only>().ok().and_then(|only| only.namespace)
        }
        _ => call.arg::<Option<String>>(0)?,
    };
    let name = name.unwrap_or_else(|| GLOBAL.to_owned());
    check_name("a namespace", &name, call)?;
    Ok(namespace(&name).to_owned())
}

#[derive(Deserialize)]
struct Named {
    namespace: Option<String>,
    key: String,
    value: Option<String>,
}

impl Named {
    fn of(json: &Json) -> Option<Self> {
        json.text().starts_with('{').then(|| json.to().ok())?
    }
}

fn checked(space: &str, key: &str, call: &ServiceCall) -> Result<Place, ServiceError> {
    check_name("a namespace", space, call)?;
    check_name("a key", key, call)?;
    Ok(Place {
        namespace: namespace(space).to_owned(),
        key: key.to_owned(),
    })
}

/// Names are shown in errors and lists and stand in database columns: bounded, and without control characters.
fn check_name(what: &str, name: &str, call: &ServiceCall) -> Result<(), ServiceError> {
    let good = !name.is_empty() && name.len() <= 256 && !name.chars().any(char::is_control);
    if good {
        return Ok(());
    }
    Err(ServiceError::validation(format!(
        "keystore.{}: {what} is 1 to 256 bytes long and holds no control characters",
        call.method()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(with_value: bool, args: &str) -> Result<(Place, Option<String>), ServiceError> {
        let args = Json::parse(args).unwrap().to().unwrap();
        let call = ServiceCall::test("keystore", "x", args);
        place(&call, with_value, &["openai".to_owned(), "gapi".to_owned()])
    }

    #[test]
    fn each_case_of_the_rule() {
        for (args, namespace, key) in [
            // One string: a key in global.
            (r#"["K"]"#, "global", "K"),
            (r#"["openai"]"#, "global", "openai"),
            // Two strings: the first is the namespace …
            (r#"["global","K"]"#, "global", "K"),
            (r#"["default","K"]"#, "global", "K"),
            (r#"["openai","K"]"#, "openai", "K"),
            (r#"["new","K"]"#, "new", "K"),
            // … unless only the second is one.
            (r#"["K","global"]"#, "global", "K"),
            (r#"["K","default"]"#, "global", "K"),
            (r#"["K","openai"]"#, "openai", "K"),
            // Named: nothing to guess.
            (r#"[{"key":"K"}]"#, "global", "K"),
            (r#"[{"namespace":"openai","key":"gapi"}]"#, "openai", "gapi"),
            (
                r#"[{"namespace":"default","key":"default"}]"#,
                "global",
                "default",
            ),
        ] {
            let (place, value) = read(false, args).unwrap();
            assert_eq!((&*place.namespace, &*place.key), (namespace, key), "{args}");
            assert_eq!(value, None);
        }
        for (args, namespace, key) in [
            (r#"["K","v"]"#, "global", "K"),
            (r#"["global","v"]"#, "global", "global"),
            (r#"["openai","K","v"]"#, "openai", "K"),
            (r#"["K","openai","v"]"#, "openai", "K"),
            (r#"["new","K","v"]"#, "new", "K"),
            (r#"[{"key":"K","value":"v","namespace":"n"}]"#, "n", "K"),
        ] {
            let (place, value) = read(true, args).unwrap();
            assert_eq!((&*place.namespace, &*place.key), (namespace, key), "{args}");
            assert_eq!(value.as_deref(), Some("v"), "{args}");
        }
    }

    #[test]
    fn what_nobody_can_tell_is_refused() {
        for args in [
            r#"["global","default"]"#,
            r#"["openai","gapi"]"#,
            r#"["openai","global"]"#,
        ] {
            let error = read(false, args).unwrap_err();
            assert!(
                error.message.contains("{namespace, key}"),
                "{}",
                error.message
            );
        }
        for args in [
            "[]",
            "[1]",
            "[null]",
            r#"["a","b","c"]"#,
            r#"["",""]"#,
            r#"["a\u0000"]"#,
            r#"[{"namespace":"a"}]"#,
        ] {
            assert!(read(false, args).is_err(), "{args}");
        }
        for args in ["[]", r#"["K"]"#, r#"[{"key":"K"}]"#, r#"["K",7]"#] {
            assert!(read(true, args).is_err(), "{args}");
        }
    }
}
