//! Which function of the entry module is the task.

use super::facts::{Exported, Facts, TopFunction};
use super::{ModuleFormat, TaskError};

/// Names of functions that are tasks by custom, in order of preference.
const CUSTOM: [&str; 5] = ["execute", "runTask", "run", "main", "handler"];

/// What the entry module gives to run.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// An exported function.
    Exported(TopFunction),
    /// Something exported that is no function in sight: a value, or an export of another module.
    Value,
    /// A function that nothing exports.
    Bare(TopFunction),
}

impl Entry {
    pub(super) fn function(&self) -> Option<&TopFunction> {
        match self {
            Self::Exported(function) | Self::Bare(function) => Some(function),
            Self::Value => None,
        }
    }

    pub(super) fn bare_name(&self) -> Option<String> {
        match self {
            Self::Bare(function) => function.name.clone(),
            Self::Exported(_) | Self::Value => None,
        }
    }
}

/// The names under which an ES module may export its task's function, best first.
///
/// `default`, then the customary names, then the task's name as an identifier.
pub(super) fn export_names(task: &str) -> impl Iterator<Item = String> + '_ {
    ["default", "execute", "runTask"]
        .into_iter()
        .map(str::to_owned)
        .chain([task.replace('-', "_"), task.to_owned()])
        .chain(CUSTOM[2..].iter().map(|&name| name.to_owned()))
}

/// Finds it. `task` is the task's name where it is known already.
pub(super) fn entry(file: &str, facts: &Facts, task: Option<&str>) -> Result<Entry, TaskError> {
    if let Some(exported) = exported(facts, task) {
        return Ok(exported);
    }
    let nothing = |reason: String| {
        TaskError::NoFunction {
        file: file.to_owned(),
        reason,
        advice: "write module.exports = async function execute(input, context) { … } (or export default)"
            .to_owned(),
    }
    };
    if let Some(bare) = bare(facts, task) {
        return Ok(Entry::Bare(bare.clone()));
    }
    if !facts.exports.is_empty() {
        let names: Vec<_> = facts
            .exports
            .iter()
            .map(|export| export.name.as_str())
            .collect();
        return Err(nothing(format!(
            "it exports {} and none of them is a function",
            list(&names)
        )));
    }
    let names: Vec<_> = facts
        .functions
        .iter()
        .filter_map(|function| function.name.as_deref())
        .collect();
    Err(nothing(if names.is_empty() {
        "it has no function and exports nothing".to_owned()
    } else {
        format!(
            "it exports nothing and has several functions ({}), so it is not clear which one is the task",
            list(&names)
        )
    }))
}

fn exported(facts: &Facts, task: Option<&str>) -> Option<Entry> {
    let as_entry = |what: &Exported| match what {
        Exported::Function(function) => Entry::Exported(function.clone()),
        Exported::Local(_) | Exported::Other => Entry::Value,
    };
    let named = |name: &str| {
        // The last assignment to `module.exports` holds.
        facts
            .exports
            .iter()
            .rev()
            .find(|export| export.name == name)
    };
    if let Some(default) = named("default") {
        return Some(as_entry(&default.what));
    }
    if let Some(export) = export_names(task.unwrap_or_default())
        .find_map(|name| named(&name).filter(|export| is_runnable(&export.what)))
    {
        return Some(as_entry(&export.what));
    }
    let mut functions = facts
        .exports
        .iter()
        .filter(|export| matches!(export.what, Exported::Function(_)));
    if let (Some(only), None) = (functions.next(), functions.next()) {
        return Some(as_entry(&only.what));
    }
    match facts.format {
        // Whatever is on `exports` is the result when no function is found.
        ModuleFormat::CommonJs => (!facts.exports.is_empty()).then_some(Entry::Value),
        // What another module exports cannot be seen here.
        ModuleFormat::EsModule => facts
            .exports
            .iter()
            .any(|export| matches!(export.what, Exported::Other))
            .then_some(Entry::Value),
    }
}

fn is_runnable(what: &Exported) -> bool {
    matches!(what, Exported::Function(_) | Exported::Other)
}

/// The function of a text that exports nothing: the only one, or the one that stands out.
fn bare<'f>(facts: &'f Facts, task: Option<&str>) -> Option<&'f TopFunction> {
    if !facts.exports.is_empty() {
        return None;
    }
    let functions = || facts.functions.iter();
    only(functions())
        .or_else(|| {
            let task = letters(task?);
            only(functions().filter(|function| {
                function
                    .name
                    .as_deref()
                    .is_some_and(|name| letters(name) == task)
            }))
        })
        .or_else(|| {
            only(functions().filter(|function| {
                doc_of(facts, function).is_some_and(|doc| doc.contains("@task"))
            }))
        })
        .or_else(|| {
            CUSTOM.iter().find_map(|custom| {
                only(functions().filter(|function| function.name.as_deref() == Some(custom)))
            })
        })
        .or_else(|| only(functions().filter(|function| doc_of(facts, function).is_some())))
        .or_else(|| only(functions().filter(|function| function.is_async)))
}

/// The doc comment right before a function.
pub(super) fn doc_of<'f>(facts: &'f Facts, function: &TopFunction) -> Option<&'f str> {
    facts
        .docs
        .iter()
        .rev()
        .find(|doc| function.starts.contains(&doc.attached_to))
        .map(|doc| doc.text.as_str())
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

/// A name without case and separators: `gapi-list-domains` and `gapiListDomains` are one.
fn letters(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

fn list(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let mut text = names
        .iter()
        .take(SHOWN)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        text.push_str(", …");
    }
    text
}
