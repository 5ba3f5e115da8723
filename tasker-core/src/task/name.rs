//! The rule for task names.

use tasker_adaptor::TaskName;

use super::TaskError;

/// Longest name, in bytes: it is a key in every backend and part of URLs.
const MAX: usize = 200;

/// Checks a name that came from `origin` (`@task in hello.js`, `file name`).
pub(super) fn task_name(name: &str, origin: &str) -> Result<TaskName, TaskError> {
    match fault(name) {
        None => Ok(TaskName::new(name)),
        Some(reason) => Err(TaskError::BadName {
            name: name.chars().take(MAX).collect(),
            origin: origin.to_owned(),
            reason: reason.to_owned(),
        }),
    }
}

fn fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("it is empty; write @task NAME into the JSDoc comment");
    }
    if name.len() > MAX {
        return Some("it is longer than 200 bytes");
    }
    if !name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
    {
        return Some("use letters a-z and A-Z, digits and the signs _ - . / only");
    }
    if name
        .split('/')
        .any(|part| part.is_empty() || part.starts_with('.'))
    {
        return Some("no part of it between / may be empty or begin with a dot");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_pass_and_bad_ones_say_why() {
        for good in [
            "a",
            "gapi-list-domains",
            "team/report.v2",
            "A_1",
            &"x".repeat(200),
        ] {
            assert_eq!(task_name(good, "test").unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", "empty"),
            (".hidden", "dot"),
            ("a/../b", "dot"),
            ("/a", "empty"),
            ("a b", "letters"),
            ("größe", "letters"),
            (&"x".repeat(201), "200"),
        ] {
            let error = task_name(bad, "@task in x.js").unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
