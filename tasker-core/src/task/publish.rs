//! From source text to a row that can be stored and a program that can run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tasker_adaptor::{Json, NewTask, TaskFunction, TaskName, TaskVersion};

use super::entry::entry;
use super::facts::Facts;
use super::name::task_name;
use super::parse::{has_ending, on_parser_stack, parse};
use super::position::position;
use super::resolve::{Target, candidates, resolve, target};
use super::schema::Schema;
use super::{Module, Program, TaskError};
use crate::limits::Limits;

/// A task as its author wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskSource {
    /// Name; `None`: the `@task` tag, else the file's name without its ending.
    pub name: Option<String>,
    /// Path of the entry file below the published folder, with `/` between parts, as error stacks show it: `hello.js`.
    /// Empty when the text came from no file; then the name decides.
    pub path: String,
    /// Text of the entry file.
    pub source: String,
    /// Text of the files that it imports, by path below the published folder.
    pub modules: Vec<(String, String)>,
}

impl TaskSource {
    /// A task in one text without a file. Its name is its `@task` tag, else the name of its function.
    pub fn text(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            ..Self::default()
        }
    }

    /// A task in one file.
    pub fn file(path: impl Into<String>, source: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            source: source.into(),
            ..Self::default()
        }
    }

    /// Gives it this name, whatever its `@task` tag says.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Adds a file that it imports.
    #[must_use]
    pub fn module(mut self, path: impl Into<String>, source: impl Into<String>) -> Self {
        self.modules.push((path.into(), source.into()));
        self
    }
}

/// What a publisher chooses. Stored with the task as a JSON object; part of its version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskOptions {
    /// Private services that the task may call, beside the public ones.
    pub grants: Vec<String>,
    /// Methods that the task may call of a service, where it may not call all; see [`TaskOptions::grant_methods`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub methods: BTreeMap<String, Vec<String>>,
    /// Path of the entry file. Set by [`prepare`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub entry: String,
}

impl TaskOptions {
    /// The options of a stored task. Members that this version does not know are ignored.
    pub fn of(function: &TaskFunction) -> Result<Self, TaskError> {
        function
            .options
            .to()
            .map_err(|error| corrupt(function, format!("its options are unreadable: {error}")))
    }
}

/// A task that is ready to be stored and run.
#[derive(Clone, Debug)]
pub struct PreparedTask {
    /// The row for [`TaskStore::publish`](tasker_adaptor::TaskStore::publish).
    pub new_task: NewTask,
    /// The same as the VM runs it.
    pub program: Program,
    /// Its schema.
    pub schema: Schema,
    /// What the author should know and what does not stop publishing.
    pub warnings: Vec<String>,
}

/// Checks a task: its text parses, its imports are there, it has something to run, its name is good.
///
/// The same source, path, modules and options give the same version for ever.
pub fn prepare(
    source: TaskSource,
    options: &TaskOptions,
    limits: &Limits,
) -> Result<PreparedTask, TaskError> {
    let shown = shown_path(&source);
    let bytes = source
        .modules
        .iter()
        .map(|(_, text)| text.len())
        .sum::<usize>()
        + source.source.len();
    if bytes > limits.source_bytes {
        return Err(TaskError::TooLarge {
            file: shown,
            bytes,
            limit: limits.source_bytes,
        });
    }
    on_parser_stack(&shown.clone(), move || {
        prepare_here(source, options, &shown)
    })
}

fn prepare_here(
    source: TaskSource,
    options: &TaskOptions,
    shown: &str,
) -> Result<PreparedTask, TaskError> {
    let mut modules = BTreeMap::new();
    for (path, text) in source.modules {
        if path == source.path || modules.insert(path.clone(), text).is_some() {
            return Err(TaskError::DuplicateModule {
                file: shown.to_owned(),
                path,
            });
        }
    }

    let loaded = load(shown, &source.source)?;
    let mut warnings = Vec::new();
    let facts = &loaded.facts;
    check_imports(shown, &loaded.source, facts, shown, &modules, &mut warnings)?;

    let doc_name = Schema::task_tag(facts);
    let stem = file_stem(&source.path);
    let given = source.name.as_deref().or(doc_name.as_deref());
    let hint = given.or(stem);
    let entry = entry(shown, facts, hint)?;
    let (name, origin) = match (source.name.as_deref(), doc_name.as_deref(), stem) {
        (Some(name), ..) => (name, "the name given at publish".to_owned()),
        (_, Some(name), _) => (name, format!("@task in {shown}")),
        (_, _, Some(name)) => (name, format!("the file name of {shown}")),
        _ => (
            entry
                .function()
                .and_then(|function| function.name.as_deref())
                .unwrap_or_default(),
            "the name of its function".to_owned(),
        ),
    };
    let name = task_name(name, &origin)?;
    let path = if source.path.is_empty() {
        format!("{name}.js")
    } else {
        source.path
    };

    let mut program_modules = Vec::new();
    for (module_path, text) in &modules {
        let module = load(module_path, text)?;
        check_imports(
            module_path,
            &module.source,
            &module.facts,
            shown,
            &modules,
            &mut warnings,
        )?;
        program_modules.push(module.into_module(module_path));
    }

    let schema = Schema::build(name.as_str(), facts, &entry, &mut warnings);
    let options = TaskOptions {
        entry: path.clone(),
        ..options.clone()
    };
    let options = to_json(&options);
    let modules_json = (!modules.is_empty()).then(|| to_json(&modules));
    let version = version(&name, &path, &source.source, &modules, &options);
    let program = Program {
        name: name.clone(),
        version: version.clone(),
        bare_function: entry.bare_name(),
        entry: loaded.into_module(&path),
        modules: program_modules,
    };
    Ok(PreparedTask {
        new_task: NewTask {
            name,
            version,
            source: source.source,
            modules: modules_json,
            schema: schema.json(),
            options,
        },
        program,
        schema,
        warnings,
    })
}

impl Program {
    /// The program of a stored task.
    ///
    /// # Errors
    /// `Corrupt` when the row does not hold what was published as this version, or what it holds cannot be read.
    pub fn from_function(function: &TaskFunction) -> Result<Self, TaskError> {
        let path = match TaskOptions::of(function)?.entry {
            entry if entry.is_empty() => format!("{}.js", function.name),
            entry => entry,
        };
        let modules: BTreeMap<String, String> = match &function.modules {
            Some(modules) => modules.to().map_err(|error| {
                corrupt(function, format!("its modules are unreadable: {error}"))
            })?,
            None => BTreeMap::new(),
        };
        let (name, options) = (&function.name, &function.options);
        if version(name, &path, &function.source, &modules, options) != function.version {
            let reason = "what is stored is not what was published: its hash is another";
            return Err(corrupt(function, reason.to_owned()));
        }
        on_parser_stack(&path, || {
            let loaded = load(&path, &function.source)?;
            let entry = entry(&path, &loaded.facts, Some(function.name.as_str()))?;
            Ok(Self {
                name: function.name.clone(),
                version: function.version.clone(),
                bare_function: entry.bare_name(),
                entry: loaded.into_module(&path),
                modules: modules
                    .iter()
                    .map(|(path, text)| Ok(load(path, text)?.into_module(path)))
                    .collect::<Result<_, TaskError>>()?,
            })
        })
    }

    /// The module that `specifier` means in the module at `from`, the entry included.
    ///
    /// Paths are taken as `./x`, then with `.js`, `.mjs`, `.cjs`, `.json`, then as a folder with `index.js`.
    pub fn resolve(&self, from: &str, specifier: &str) -> Option<&Module> {
        let find = |path: &str| {
            std::iter::once(&self.entry)
                .chain(&self.modules)
                .find(|module| module.path == path)
        };
        resolve(from, specifier, |path| find(path).is_some()).and_then(|path| find(&path))
    }

    /// The names under which the entry, when it is an ES module, may export the task's function, best first.
    /// When none of them is there, an only exported function is the task.
    pub fn export_names(&self) -> impl Iterator<Item = String> + '_ {
        super::entry::export_names(self.name.as_str())
    }
}

/// A file as it runs, with what was read from it.
pub(super) struct Loaded {
    pub(super) source: String,
    pub(super) facts: Facts,
}

impl Loaded {
    fn into_module(self, path: &str) -> Module {
        Module {
            path: path.to_owned(),
            source: self.source,
            format: self.facts.format,
        }
    }
}

/// Turns the text of a file into JavaScript and parses it.
pub(super) fn load(path: &str, text: &str) -> Result<Loaded, TaskError> {
    let source = if has_ending(path, "json") {
        json_module(path, text)?
    } else if ["ts", "mts", "cts"]
        .iter()
        .any(|ending| has_ending(path, ending))
    {
        super::typescript::strip(path, text)?
    } else {
        // A byte order mark is no part of the program, and QuickJS does not skip it.
        text.strip_prefix('\u{feff}').unwrap_or(text).to_owned()
    };
    let facts = parse(path, &source)?;
    Ok(Loaded { source, facts })
}

/// A JSON file as a module whose value it is.
fn json_module(path: &str, text: &str) -> Result<String, TaskError> {
    match serde_json::from_str::<&serde_json::value::RawValue>(text) {
        Ok(value) => Ok(format!("module.exports = {};\n", value.get())),
        Err(error) => Err(TaskError::Syntax {
            file: path.to_owned(),
            line: error.line() as u32,
            column: (error.column() as u32).max(1),
            message: format!("not JSON: {error}"),
        }),
    }
}

fn check_imports(
    file: &str,
    source: &str,
    facts: &Facts,
    entry_path: &str,
    modules: &BTreeMap<String, String>,
    warnings: &mut Vec<String>,
) -> Result<(), TaskError> {
    for import in &facts.imports {
        let specifier = import.specifier.clone();
        let line = position(source, import.offset as usize).line;
        let file = file.to_owned();
        let error = match target(&file, &specifier) {
            Target::Path(path) => {
                let found = candidates(&path)
                    .any(|candidate| candidate == entry_path || modules.contains_key(&candidate));
                if found {
                    continue;
                }
                TaskError::ImportNotFound {
                    file,
                    line,
                    specifier,
                    tried: candidates(&path).take(2).collect::<Vec<_>>().join(", "),
                }
            }
            Target::Outside => TaskError::ImportOutside {
                file,
                line,
                specifier,
            },
            Target::Bare => TaskError::ImportUnknown {
                file,
                line,
                specifier,
            },
        };
        if !import.guarded {
            return Err(error);
        }
        warnings.push(format!("{error} (it will fail when it is reached)"));
    }
    Ok(())
}

/// Hash of everything that decides what a run does, each part with its length before it.
fn version(
    name: &TaskName,
    path: &str,
    source: &str,
    modules: &BTreeMap<String, String>,
    options: &Json,
) -> TaskVersion {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    part("tasker task 1");
    part(name.as_str());
    part(path);
    part(source);
    for (path, text) in modules {
        part(path);
        part(text);
    }
    // Modules come in pairs, so a last single part cannot be taken for one of them.
    part(options.text());
    let digest = hash.finalize();
    let mut hex = String::with_capacity(64);
    for byte in digest {
        use std::fmt::Write as _;
        let _ = write!(hex, "{byte:02x}");
    }
    TaskVersion::new(hex)
}

/// How messages name a source.
fn shown_path(source: &TaskSource) -> String {
    if !source.path.is_empty() {
        return source.path.clone();
    }
    match &source.name {
        Some(name) => format!("{name}.js"),
        None => "task.js".to_owned(),
    }
}

/// The name of a task in a file: its tag, else the file's name without its ending.
pub(super) fn shown_name(path: &str, tag: Option<&str>) -> String {
    tag.or_else(|| file_stem(path)).unwrap_or(path).to_owned()
}

fn file_stem(path: &str) -> Option<&str> {
    let file = path.rsplit('/').next()?;
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    (!stem.is_empty()).then_some(stem)
}

fn corrupt(function: &TaskFunction, reason: String) -> TaskError {
    TaskError::Corrupt {
        name: function.name.to_string(),
        version: function.version.to_string(),
        reason,
    }
}

fn to_json<T: Serialize>(value: &T) -> Json {
    Json::from(value).expect("maps with text keys and plain fields are JSON")
}
