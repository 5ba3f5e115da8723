//! The JavaScript that makes a realm a task's: one script, run in each realm before any task code; and others for globals that not
//! every task touches, each run in a realm when a task first touches one of its own.
//!
//! Each is a function of what it needs. The first takes the bridge functions, and what it needs of the language into constants first,
//! so that nothing a task replaces later changes what it does; it returns the functions that Rust calls. The others take what
//! `prelude/lazy.js` gives them.

/// A script that runs when it is first needed, in the realm as the task has left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// `Date`. It uses nothing that a task can replace: what it hides is the host's clock and zone.
    Date,
    /// `setTimeout` and its like. As the next two, it uses nothing that a task can replace.
    Timers,
    Console,
    Crypto,
    /// The chains of fluent services.
    Fluent,
    /// The web's globals. What a task did to the language before it first touches `URL` can confuse its own `URL`, and reaches no more
    /// than that.
    Web,
}

impl Script {
    pub(super) const ALL: [Self; 6] = [
        Self::Date,
        Self::Timers,
        Self::Console,
        Self::Crypto,
        Self::Fluent,
        Self::Web,
    ];

    /// The name under which the prelude asks for it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Date => "date",
            Self::Timers => "timers",
            Self::Console => "console",
            Self::Crypto => "crypto",
            Self::Fluent => "fluent",
            Self::Web => "web",
        }
    }

    const fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Date => &[include_str!("prelude/date.js")],
            Self::Timers => &[include_str!("prelude/timers.js")],
            Self::Console => &[include_str!("prelude/console.js")],
            Self::Crypto => &[include_str!("prelude/crypto.js")],
            Self::Fluent => &[include_str!("prelude/fluent.js")],
            Self::Web => &[
                "const all = bare({}), publish = (name, value) => { all[name] = value; };",
                // Not by `bind`: where memory ends in it, QuickJS frees what it has not made.
                "const uncurry = (method) => (self, ...args) => apply(method, self, args);",
                include_str!("prelude/url.js"),
                include_str!("prelude/encoding.js"),
                include_str!("prelude/clone.js"),
                include_str!("prelude/abort.js"),
                include_str!("prelude/fetch.js"),
                "return all;",
            ],
        }
    }

    /// Its text: a function of the object that `prelude/lazy.js` gives it, whose members are constants within.
    pub(super) fn source(self) -> String {
        let asked = format!("host_script('{}')(bare({{", self.name());
        let given = include_str!("prelude/lazy.js")
            .split_once(asked.as_str())
            .and_then(|(_, rest)| rest.split_once("})"))
            .map_or("", |(names, _)| names);
        let head = format!("(function (core) {{\n'use strict';\nconst {{ {given} }} = core;\n");
        joined(head, self.parts())
    }
}

const PARTS: &[&str] = &[
    include_str!("prelude/primordials.js"),
    include_str!("prelude/errors.js"),
    include_str!("prelude/tools.js"),
    include_str!("prelude/lazy.js"),
    include_str!("prelude/entry.js"),
];

/// The first script; its value is a function that takes the array of bridge functions under these names.
pub(super) fn source(bridge: &[&str]) -> String {
    let names = bridge.join(", ");
    let head = format!("(function (bridge) {{\n'use strict';\nconst [{names}] = bridge;\n");
    joined(head, PARTS)
}

fn joined(mut text: String, parts: &[&str]) -> String {
    for part in parts {
        text.push_str(part);
        text.push('\n');
    }
    text.push_str("})");
    text
}
