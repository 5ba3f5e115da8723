//! Where a relative import leads.

/// Endings tried after the path as written.
const ENDINGS: [&str; 10] = [
    "",
    ".js",
    ".mjs",
    ".cjs",
    ".json",
    ".ts",
    ".mts",
    ".cts",
    "/index.js",
    "/index.ts",
];

/// What a specifier means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A path below the root, as written: endings are still to be tried.
    Path(String),
    /// It leads above the root.
    Outside,
    /// It is not relative.
    Bare,
}

/// The path that `specifier` means in the module at `from`.
pub(super) fn target(from: &str, specifier: &str) -> Target {
    let relative = specifier.starts_with("./")
        || specifier.starts_with("../")
        || matches!(specifier, "." | "..");
    if !relative {
        return Target::Bare;
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in specifier.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Target::Outside;
                }
            }
            name => parts.push(name),
        }
    }
    Target::Path(parts.join("/"))
}

/// The paths a target can be, in the order in which they are tried.
pub(super) fn candidates(path: &str) -> impl Iterator<Item = String> + '_ {
    // A TypeScript file is imported by the name it will have as JavaScript.
    let twin = [(".js", ".ts"), (".mjs", ".mts"), (".cjs", ".cts")]
        .into_iter()
        .find_map(|(js, ts)| path.strip_suffix(js).map(|stem| format!("{stem}{ts}")));
    ENDINGS
        .iter()
        .map(move |ending| {
            if path.is_empty() {
                ending.trim_start_matches('/').to_owned()
            } else {
                format!("{path}{ending}")
            }
        })
        .filter(|candidate| !candidate.is_empty())
        .chain(twin)
}

/// The path among `exists` that `specifier` means in the module at `from`.
pub(super) fn resolve(
    from: &str,
    specifier: &str,
    exists: impl Fn(&str) -> bool,
) -> Option<String> {
    match target(from, specifier) {
        Target::Path(path) => candidates(&path).find(|candidate| exists(candidate)),
        Target::Outside | Target::Bare => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_stay_below_the_root() {
        for (from, specifier, expected) in [
            ("a.js", "./b", Target::Path("b".into())),
            ("x/a.js", "../b.js", Target::Path("b.js".into())),
            ("x/y/a.js", "./../z/./b", Target::Path("x/z/b".into())),
            ("a.js", "../b", Target::Outside),
            ("x/a.js", "../../b", Target::Outside),
            ("x/a.js", "..", Target::Path(String::new())),
            ("a.js", "tasks", Target::Bare),
            ("a.js", "/etc/passwd", Target::Bare),
            ("a.js", "https://example.com/x.js", Target::Bare),
        ] {
            assert_eq!(target(from, specifier), expected, "{from} {specifier}");
        }
    }

    #[test]
    fn endings_and_index_files_are_tried() {
        let files = ["lib/index.js", "b.js", "c.ts", "index.js"];
        let exists = |path: &str| files.contains(&path);
        assert_eq!(
            resolve("a.js", "./lib", exists).as_deref(),
            Some("lib/index.js")
        );
        assert_eq!(resolve("a.js", "./b", exists).as_deref(), Some("b.js"));
        assert_eq!(resolve("a.js", "./c.js", exists).as_deref(), Some("c.ts"));
        assert_eq!(
            resolve("lib/x.js", "..", exists).as_deref(),
            Some("index.js")
        );
        assert_eq!(resolve("a.js", "./none", exists), None);
    }
}
