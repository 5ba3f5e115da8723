//! Which services and methods a task may call.

use super::TaskOptions;

/// Why a call is not for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotGranted {
    /// The service is private and the task's options do not name it.
    Service,
    /// The task was granted some methods of the service, and this is none of them.
    Method,
}

impl TaskOptions {
    /// Lets the task call a private service, all its methods.
    #[must_use]
    pub fn grant(mut self, service: impl Into<String>) -> Self {
        self.grants.push(service.into());
        self
    }

    /// Lets the task call these methods of a service, private or public, and no others of it. A method is a dotted name
    /// (`gmail.users.messages.list`); `drive.*` is every method below `drive`, `*` every method. Of a fluent chain the names of all
    /// links count: `from.select.eq`. Repeated for one service, the lists add up.
    #[must_use]
    pub fn grant_methods<M: Into<String>>(
        mut self,
        service: impl Into<String>,
        methods: impl IntoIterator<Item = M>,
    ) -> Self {
        let granted = self.methods.entry(service.into()).or_default();
        granted.extend(methods.into_iter().map(Into::into));
        self
    }

    /// Whether the task may call this method (a dotted name) of this service.
    ///
    /// # Errors
    /// What was not granted.
    pub fn allows(
        &self,
        service: &str,
        method: &str,
        service_is_private: bool,
    ) -> Result<(), NotGranted> {
        match self.methods.get(service) {
            Some(granted) if granted.iter().any(|pattern| covers(pattern, method)) => Ok(()),
            Some(_) => Err(NotGranted::Method),
            None if service_is_private && !self.grants.iter().any(|name| name == service) => {
                Err(NotGranted::Service)
            }
            None => Ok(()),
        }
    }
}

/// Whether a granted name means this method.
fn covers(pattern: &str, method: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some("") => true,
        Some(below) if below.ends_with('.') => method.starts_with(below),
        _ => pattern == method,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_methods_is_all_that_a_task_has_of_a_service() {
        let options = TaskOptions::default()
            .grant("vault")
            .grant_methods("gapi", ["gmail.users.messages.list", "drive.*"])
            .grant_methods("db", ["from.select.eq"])
            .grant_methods("none", [] as [&str; 0])
            .grant_methods("all", ["*"]);
        for (service, method, private, expected) in [
            ("vault", "open", true, Ok(())),
            ("other", "open", true, Err(NotGranted::Service)),
            ("other", "open", false, Ok(())),
            ("gapi", "gmail.users.messages.list", true, Ok(())),
            (
                "gapi",
                "gmail.users.messages.send",
                true,
                Err(NotGranted::Method),
            ),
            (
                "gapi",
                "gmail.users.messages.list.x",
                true,
                Err(NotGranted::Method),
            ),
            (
                "gapi",
                "gmail.users.messages",
                true,
                Err(NotGranted::Method),
            ),
            ("gapi", "drive.files.list", false, Ok(())),
            ("gapi", "drive", false, Err(NotGranted::Method)),
            ("gapi", "drivex.files", false, Err(NotGranted::Method)),
            ("db", "from.select.eq", false, Ok(())),
            ("db", "from.delete.eq", false, Err(NotGranted::Method)),
            ("none", "x", false, Err(NotGranted::Method)),
            ("all", "x.y", true, Ok(())),
        ] {
            assert_eq!(
                options.allows(service, method, private),
                expected,
                "{service}.{method} {private}"
            );
        }
    }

    #[test]
    fn a_star_is_a_whole_name_only() {
        assert!(!covers("drive*", "drive.files"));
        assert!(!covers("d*e.x", "drive.x"));
        assert!(covers("a.b.*", "a.b.c.d"));
    }

    #[test]
    fn options_without_lists_are_written_as_before() {
        let text = serde_json::to_string(&TaskOptions::default().grant("vault")).unwrap();
        assert_eq!(text, r#"{"grants":["vault"]}"#);
    }
}
