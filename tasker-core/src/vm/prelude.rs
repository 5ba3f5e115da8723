//! The JavaScript that makes a realm a task's: one script, compiled once, run in each realm before any task code.
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
    include_str!("prelude/url.js"),
    include_str!("prelude/encoding.js"),
    include_str!("prelude/clone.js"),
    include_str!("prelude/abort.js"),
    include_str!("prelude/crypto.js"),
    include_str!("prelude/fetch.js"),
    include_str!("prelude/entry.js"),
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
