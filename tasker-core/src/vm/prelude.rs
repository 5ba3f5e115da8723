//! The JavaScript that makes a realm a task's: one script, compiled once, run in each realm before any task code; and a second one
//! for globals that few tasks touch.
//!
//! It is a function of the bridge functions. What it needs of the language it takes into constants first, so that nothing a task
//! replaces later changes what it does. It returns the functions that Rust calls.

const PARTS: &[&str] = &[
    include_str!("prelude/primordials.js"),
    include_str!("prelude/errors.js"),
    include_str!("prelude/date.js"),
    include_str!("prelude/console.js"),
    include_str!("prelude/timers.js"),
    include_str!("prelude/tools.js"),
    include_str!("prelude/crypto.js"),
    include_str!("prelude/lazy.js"),
    include_str!("prelude/entry.js"),
];

/// What [`web_source`] is made of.
const WEB: &[&str] = &[
    include_str!("prelude/url.js"),
    include_str!("prelude/encoding.js"),
    include_str!("prelude/clone.js"),
    include_str!("prelude/abort.js"),
    include_str!("prelude/fetch.js"),
];

/// The script; its value is a function that takes the array of bridge functions under these names.
pub(super) fn source(bridge: &[&str]) -> String {
    let mut text = format!(
        "(function (bridge) {{\n'use strict';\nconst [{}] = bridge;\n",
        bridge.join(", ")
    );
    for part in PARTS {
        text.push_str(part);
        text.push('\n');
    }
    text.push_str("})");
    text
}

/// The second script: a function that takes what `lazy.js` gives it and answers the web globals by name. A realm is cheaper without it,
/// and few tasks need it. It runs in the realm as the task has left it: what a task did to the language before it first touches `URL`
/// can confuse its own `URL`, and reaches no more than that.
pub(super) fn web_source() -> String {
    let lazy = include_str!("prelude/lazy.js");
    let given = lazy
        .split_once("bare({")
        .and_then(|(_, rest)| rest.split_once("})"))
        .map_or("", |(names, _)| names);
    let mut text = format!(
        "(function (core) {{\n'use strict';\nconst {{ {given} }} = core;\nconst all = bare({{}});\nconst publish = (name, value) => {{ all[name] = value; }};\n"
    );
    for part in WEB {
        text.push_str(part);
        text.push('\n');
    }
    text.push_str("return all;\n})");
    text
}
