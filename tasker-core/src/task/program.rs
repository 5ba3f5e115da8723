//! A task version as the VM runs it.

use tasker_adaptor::{TaskName, TaskVersion};

/// How a module's text is to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModuleFormat {
    /// `module.exports`, `exports`, `require('./other')`; also a text without any export.
    CommonJs,
    /// `import` and `export`.
    EsModule,
}

/// One file of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Path below the entry's folder with `/` between parts, as error stacks show it: `blog-generator.js`, `lib/helper.js`.
    pub path: String,
    /// JavaScript.
    pub source: String,
    /// How it is run.
    pub format: ModuleFormat,
}

/// A task version as the VM runs it. Immutable and shared; VMs cache bytecode by its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Name.
    pub name: TaskName,
    /// Version.
    pub version: TaskVersion,
    /// The module that has the task's function.
    pub entry: Module,
    /// The modules that it imports or requires, by path.
    pub modules: Vec<Module>,
    /// Name of the function to run when nothing is exported: a text with a single top-level function.
    pub bare_function: Option<String>,
}
