//! Tasks: publishing, the catalogue, schemas from JSDoc.

mod program;

pub use program::{Module, ModuleFormat, Program};
