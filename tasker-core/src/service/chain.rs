//! How a call is recorded, and the chain of links that a service is given.
//!
//! A recorded call is a path and one argument text (`vm::Made::Call`). There are two forms:
//!
//! | form | path | arguments |
//! |---|---|---|
//! | plain | `admin.directory.domains.list` | positional: `[{"customer":"my_customer"}]` |
//! | chain | `from().select().eq()` | one array a called link: `[["t"],["*"],["id",1]]` |
//!
//! Both directions keep the exact text of every argument. Pure.

use std::borrow::Cow;

use tasker_adaptor::Json;

use super::Link;

/// A recorded call that cannot be read as a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The arguments are not what the form of the path asks for.
    #[error("the arguments of the recorded call {path:?} are not {expected}: {args}")]
    Arguments {
        /// Path of the call.
        path: String,
        /// What they should be.
        expected: &'static str,
        /// The first 200 characters of what they are.
        args: String,
    },
    /// Called links and argument arrays differ in number.
    #[error(
        "the recorded call {path:?} has {links} called links and {arrays} argument arrays: each called link needs one"
    )]
    Count {
        /// Path of the call.
        path: String,
        /// Called links in the path.
        links: usize,
        /// Argument arrays.
        arrays: usize,
    },
}

/// The links of a recorded call.
///
/// # Errors
/// When the arguments are no array (plain), or not one array a called link (chain).
pub fn links(path: &str, args: &Json) -> Result<Vec<Link>, ChainError> {
    let refused = |expected| ChainError::Arguments {
        path: path.to_owned(),
        expected,
        args: args.text().chars().take(200).collect(),
    };
    if !is_chain(path) {
        let args = args.elements().map_err(|_| refused("an array"))?;
        let mut links: Vec<Link> = path.split('.').map(Link::through).collect();
        if let Some(last) = links.last_mut() {
            last.args = Some(args);
        }
        return Ok(links);
    }
    let arrays: Result<Vec<Vec<Json>>, _> = args
        .elements()
        .and_then(|arrays| arrays.iter().map(Json::elements).collect());
    let arrays = arrays.map_err(|_| refused("an array of arrays"))?;
    let count = arrays.len();
    let mut arrays = arrays.into_iter();
    let mut links = Vec::new();
    let mut called = 0;
    for part in path.split('.') {
        match part.strip_suffix("()") {
            Some(name) => {
                called += 1;
                links.push(Link::called(name, arrays.next().unwrap_or_default()));
            }
            None => links.push(Link::through(part)),
        }
    }
    if called != count {
        return Err(ChainError::Count {
            path: path.to_owned(),
            links: called,
            arrays: count,
        });
    }
    Ok(links)
}

/// Path and argument text of a chain, as a call is recorded: plain when arguments are on the last link only (or on none).
pub fn recorded(links: &[Link]) -> (String, Json) {
    let plain = links
        .split_last()
        .is_none_or(|(_, before)| before.iter().all(|link| link.args.is_none()));
    let mut path = String::new();
    let mut arrays = Vec::new();
    for link in links {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&link.name);
        if let Some(args) = &link.args {
            if !plain {
                path.push_str("()");
            }
            arrays.push(array(args));
        }
    }
    let args = match (plain, arrays.pop()) {
        (true, last) => last.unwrap_or_else(|| array(&[])),
        (false, last) => {
            arrays.extend(last);
            array(&arrays)
        }
    };
    (path, args)
}

/// Whether a recorded path is of the chain form.
pub fn is_chain(path: &str) -> bool {
    path.contains('(') && path.split('.').any(|part| part.ends_with("()"))
}

/// The names of a recorded path, dotted, without the marks of called links.
pub(crate) fn method(path: &str) -> Cow<'_, str> {
    if !is_chain(path) {
        return path.into();
    }
    let names = path
        .split('.')
        .map(|part| part.strip_suffix("()").unwrap_or(part));
    names.collect::<Vec<_>>().join(".").into()
}

/// The array of these values, each with its text as it is.
pub(crate) fn array(values: &[Json]) -> Json {
    let mut text =
        String::with_capacity(2 + values.iter().map(|v| v.text().len() + 1).sum::<usize>());
    text.push('[');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(value.text());
    }
    text.push(']');
    Json::parse(text).expect("values of JSON with commas between them, in brackets, are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text).unwrap()
    }

    #[test]
    fn both_forms_survive_the_round_trip() {
        for (path, args, expected) in [
            ("list", "[]", vec![Link::called("list", vec![])]),
            (
                "admin.domains.list",
                r#"[{"b":1.0,"a":"\ud800"},null]"#,
                vec![
                    Link::through("admin"),
                    Link::through("domains"),
                    Link::called(
                        "list",
                        vec![json(r#"{"b":1.0,"a":"\ud800"}"#), Json::null()],
                    ),
                ],
            ),
            (
                "from().select().eq()",
                r#"[["t"],[],["id",1e2]]"#,
                vec![
                    Link::called("from", vec![json(r#""t""#)]),
                    Link::called("select", vec![]),
                    Link::called("eq", vec![json(r#""id""#), json("1e2")]),
                ],
            ),
            (
                "auth.from().then2",
                r#"[["t"]]"#,
                vec![
                    Link::through("auth"),
                    Link::called("from", vec![json(r#""t""#)]),
                    Link::through("then2"),
                ],
            ),
            // One called link that is not the last is a chain too.
            (
                "from().rows",
                "[[[1, 2]]]",
                vec![
                    Link::called("from", vec![json("[1, 2]")]),
                    Link::through("rows"),
                ],
            ),
        ] {
            let links = links(path, &json(args)).unwrap();
            assert_eq!(links, expected, "{path}");
            assert_eq!(recorded(&links), (path.to_owned(), json(args)), "{path}");
        }
    }

    #[test]
    fn a_chain_that_nobody_called_is_recorded_as_called_without_arguments() {
        let (path, args) = recorded(&[Link::through("a"), Link::through("b")]);
        assert_eq!((path.as_str(), args.text()), ("a.b", "[]"));
    }

    #[test]
    fn arguments_that_do_not_fit_the_path_are_refused() {
        assert!(links("list", &json("{}")).is_err());
        assert!(links("from().select()", &json(r#"[["t"],"*"]"#)).is_err());
        assert_eq!(
            links("from().select()", &json(r#"[["t"]]"#))
                .unwrap_err()
                .to_string(),
            r#"the recorded call "from().select()" has 2 called links and 1 argument arrays: each called link needs one"#
        );
    }
}
