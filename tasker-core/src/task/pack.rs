//! Tasks from folders: which files are tasks, and which modules belong to each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::parse::{has_ending, on_parser_stack};
use super::publish::{load, shown_name};
use super::resolve::resolve;
use super::{TaskError, TaskSource};
use crate::limits::Limits;

/// Endings of files that can be tasks. TypeScript needs the feature `typescript`.
const TASKS: &[&str] = if cfg!(feature = "typescript") {
    &["js", "mjs", "cjs", "ts", "mts", "cts"]
} else {
    &["js", "mjs", "cjs"]
};

/// Every task below these folders, with the modules it imports, ordered by folder and path.
///
/// A file that others import is a module and no task, unless it has a `@task` tag (a task that its own modules import
/// needs one). Folders and files whose name begins
/// with a dot, `node_modules` and `.d.ts` files are passed over. Each task's path is the one below its folder.
pub fn read_dir(dirs: &[PathBuf], limits: &Limits) -> Result<Vec<TaskSource>, TaskError> {
    let mut tasks = Vec::new();
    let mut names = BTreeMap::<String, PathBuf>::new();
    for dir in dirs {
        let folder = Folder::read(dir, limits)?;
        let imported: BTreeSet<&String> = folder
            .files
            .values()
            .flat_map(|file| &file.imports)
            .collect();
        for (path, file) in &folder.files {
            let is_task = file.is_source && (file.tag.is_some() || !imported.contains(path));
            if !is_task {
                continue;
            }
            let task = folder.task(path, file);
            let name = shown_name(path, file.tag.as_deref());
            let place = dir.join(path);
            if let Some(first) = names.insert(name.clone(), place.clone())
                && first != place
            {
                return Err(TaskError::DuplicateName {
                    name,
                    first,
                    second: place,
                });
            }
            tasks.push(task);
        }
    }
    Ok(tasks)
}

/// The task in one file, with the modules below the file's folder that it imports.
pub fn read_file(path: &Path, limits: &Limits) -> Result<TaskSource, TaskError> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let root = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let root = root.unwrap_or(Path::new("."));
    let mut folder = Folder::default();
    let mut wanted = vec![name.clone()];
    while let Some(next) = wanted.pop() {
        if folder.files.contains_key(&next) {
            continue;
        }
        let file = File::read(root, &next, limits, |path| root.join(path).is_file())?;
        wanted.extend(file.imports.iter().cloned());
        folder.files.insert(next, file);
    }
    Ok(folder.task(&name, &folder.files[&name]))
}

/// The files below a folder, by path with `/` between parts.
#[derive(Default)]
struct Folder {
    files: BTreeMap<String, File>,
}

struct File {
    text: String,
    /// Paths of the files that it imports.
    imports: Vec<String>,
    /// Its `@task` name.
    tag: Option<String>,
    /// It can be a task by its ending.
    is_source: bool,
}

impl Folder {
    fn read(root: &Path, limits: &Limits) -> Result<Self, TaskError> {
        let mut paths = BTreeSet::new();
        list(root, "", &mut paths)?;
        let mut folder = Self::default();
        for path in &paths {
            let file = File::read(root, path, limits, |path| paths.contains(path))?;
            folder.files.insert(path.clone(), file);
        }
        Ok(folder)
    }

    /// The task at `path` with everything that it reaches.
    fn task(&self, path: &str, file: &File) -> TaskSource {
        let mut reached = BTreeSet::new();
        let mut wanted: Vec<&String> = file.imports.iter().collect();
        while let Some(next) = wanted.pop() {
            if next != path
                && let Some(module) = self.files.get(next)
                && reached.insert(next)
            {
                wanted.extend(&module.imports);
            }
        }
        TaskSource {
            name: None,
            path: path.to_owned(),
            source: file.text.clone(),
            modules: reached
                .into_iter()
                .map(|path| (path.clone(), self.files[path].text.clone()))
                .collect(),
        }
    }
}

impl File {
    fn read(
        root: &Path,
        path: &str,
        limits: &Limits,
        exists: impl Fn(&str) -> bool,
    ) -> Result<Self, TaskError> {
        let place = root.join(path);
        let unreadable = |source| TaskError::Io {
            path: place.clone(),
            source,
        };
        let bytes = fs::metadata(&place).map_err(unreadable)?.len();
        if bytes > limits.source_bytes as u64 {
            return Err(TaskError::TooLarge {
                file: path.to_owned(),
                bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
                limit: limits.source_bytes,
            });
        }
        let text = fs::read_to_string(&place).map_err(unreadable)?;
        let loaded = on_parser_stack(path, || load(path, &text))?;
        let imports = loaded
            .facts
            .imports
            .iter()
            .filter_map(|import| resolve(path, &import.specifier, &exists))
            .collect();
        Ok(Self {
            imports,
            tag: super::Schema::task_tag(&loaded.facts),
            is_source: TASKS.iter().any(|ending| has_ending(path, ending)),
            text,
        })
    }
}

/// Collects the paths of files that can be tasks or modules.
fn list(dir: &Path, prefix: &str, into: &mut BTreeSet<String>) -> Result<(), TaskError> {
    let unreadable = |source| TaskError::Io {
        path: dir.to_owned(),
        source,
    };
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // A name that is not Unicode cannot be a task's path.
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        if name.starts_with('.') || name == "node_modules" {
            continue;
        }
        let path = format!("{prefix}{name}");
        // A link to a folder is not followed: it may lead out, or in circles.
        let kind = entry.file_type().map_err(unreadable)?;
        if kind.is_dir() {
            list(&entry.path(), &format!("{path}/"), into)?;
        } else if is_wanted(&name) && kind.is_file() {
            into.insert(path);
        }
    }
    Ok(())
}

fn is_wanted(name: &str) -> bool {
    let declaration = [".d.ts", ".d.mts", ".d.cts"]
        .iter()
        .any(|ending| name.ends_with(ending));
    !declaration
        && (has_ending(name, "json") || TASKS.iter().any(|ending| has_ending(name, ending)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let place = dir.path().join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, text).unwrap();
        }
        dir
    }

    fn paths(tasks: &[TaskSource]) -> Vec<(&str, Vec<&str>)> {
        tasks
            .iter()
            .map(|task| {
                let modules = task.modules.iter().map(|(path, _)| path.as_str()).collect();
                (task.path.as_str(), modules)
            })
            .collect()
    }

    #[test]
    fn tasks_are_packed_with_what_they_import_and_modules_are_no_tasks() {
        let dir = folder(&[
            ("a.js", "/** @task a */ module.exports = require('./lib/x')"),
            (
                "lib/x.js",
                "require('./y.js'); require('../a'); module.exports = 1",
            ),
            ("lib/y.js", "module.exports = require('../data')"),
            ("data.json", "{}"),
            ("sub/b.mjs", "import '../c.js'; export default () => 1"),
            ("c.js", "/** @task see */ module.exports = () => 1"),
            (".hidden/d.js", "("),
            ("node_modules/e.js", "("),
            ("types.d.ts", "("),
            ("notes.txt", "("),
        ]);
        let tasks = read_dir(&[dir.path().to_owned()], &Limits::default()).unwrap();
        assert_eq!(
            paths(&tasks),
            [
                ("a.js", vec!["data.json", "lib/x.js", "lib/y.js"]),
                ("c.js", vec![]),
                ("sub/b.mjs", vec!["c.js"])
            ]
        );
        let one = read_file(&dir.path().join("a.js"), &Limits::default()).unwrap();
        assert_eq!(one, tasks[0]);
    }

    #[test]
    fn two_files_with_one_name_are_an_error_that_names_both() {
        let one = folder(&[("x.js", "module.exports = 1")]);
        let other = folder(&[("deep/y.js", "/** @task x */ module.exports = 1")]);
        let dirs = [one.path().to_owned(), other.path().to_owned()];
        let error = read_dir(&dirs, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("\"x\""), "{error}");
        assert!(
            error.contains(&one.path().join("x.js").display().to_string()),
            "{error}"
        );
        assert!(
            error.contains(&other.path().join("deep/y.js").display().to_string()),
            "{error}"
        );
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = read_dir(&["/no/such/folder".into()], &Limits::default()).unwrap_err();
        assert!(matches!(error, TaskError::Io { .. }), "{error}");
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
        assert!(!error.is_retryable());
    }
}
