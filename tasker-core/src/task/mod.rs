//! Tasks: publishing, the catalogue, schemas from JSDoc.
//!
//! What is here: from the files an author wrote to a row that can be stored ([`prepare`]), and from that row to
//! what a VM runs ([`Program::from_function`]). Synchronous; the only I/O is [`read_dir`].
//! What is not: storage (the engine publishes what `prepare` made) and running.
//!
//! Invariants: the same text, path, modules and options give the same version · what was accepted here parses
//! in every later version of this crate · no text, however hostile, panics or overflows the stack.

mod doc_type;
mod entry;
mod error;
mod facts;
mod grants;
mod jsdoc;
mod literal;
mod name;
mod nesting;
mod openapi;
mod pack;
mod parse;
mod position;
mod program;
mod publish;
mod resolve;
mod schema;
mod schema_text;
mod shape;
mod types;
mod typescript;
mod validate;

pub use error::TaskError;
pub use grants::NotGranted;
pub use pack::{read_dir, read_file};
pub use program::{Module, ModuleFormat, Program};
pub use publish::{PreparedTask, TaskOptions, TaskSource, prepare};
pub use schema::{ErrorDoc, Schema};
pub use shape::{Kind, Member, Shape};
pub use types::type_declarations;
