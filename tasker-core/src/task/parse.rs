//! One JavaScript file, parsed: what it imports, exports and documents.
//!
//! Parsing is done by oxc on a thread with a large stack, because the parser is recursive and the text is a stranger's;
//! [`super::nesting`] refuses texts that would pass even that stack.

use std::thread;

use oxc::allocator::Allocator;
use oxc::diagnostics::OxcDiagnostic;
use oxc::parser::{Parser, ParserReturn};
use oxc::semantic::SemanticBuilder;
use oxc::span::SourceType;

use super::facts::{Facts, facts};
use super::nesting;
use super::position::{code_frame, position};
use super::{ModuleFormat, TaskError};

/// Stack of the parsing thread. Its pages are committed only when they are touched;
/// [`nesting::LIMIT`] levels need less in every build profile.
const STACK_BYTES: usize = 256 << 20;

/// Runs `work` on a thread whose stack suits the parser.
pub(super) fn on_parser_stack<T: Send>(
    file: &str,
    work: impl FnOnce() -> Result<T, TaskError> + Send,
) -> Result<T, TaskError> {
    thread::scope(|scope| {
        let running = thread::Builder::new()
            .name("tasker-parse".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|source| TaskError::Thread {
                file: file.to_owned(),
                source,
            })?;
        match running.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Parses one file. Call it on [`on_parser_stack`].
pub(super) fn parse(file: &str, source: &str) -> Result<Facts, TaskError> {
    nesting::check(file, source)?;
    if has_ending(file, "cjs") {
        return parse_as(file, source, ModuleFormat::CommonJs).map(|(facts, _)| facts);
    }
    if has_ending(file, "mjs") {
        return parse_as(file, source, ModuleFormat::EsModule).map(|(facts, _)| facts);
    }
    // `import` and `export` decide. Without them the looser grammar of scripts holds, unless only a module can parse
    // (`await` at the top).
    let module = match parse_as(file, source, ModuleFormat::EsModule) {
        Ok((facts, true)) => return Ok(facts),
        other => other,
    };
    match (parse_as(file, source, ModuleFormat::CommonJs), module) {
        (Ok((facts, _)), _) | (Err(_), Ok((facts, _))) => Ok(facts),
        (Err(script), Err(module)) => Err(if mentions_module_syntax(source) {
            module
        } else {
            script
        }),
    }
}

/// Facts, and whether the text has `import` or `export`.
fn parse_as(file: &str, source: &str, format: ModuleFormat) -> Result<(Facts, bool), TaskError> {
    let allocator = Allocator::default();
    let kind = match format {
        ModuleFormat::CommonJs => SourceType::cjs(),
        ModuleFormat::EsModule => SourceType::mjs(),
    };
    let parsed = Parser::new(&allocator, source, kind).parse();
    refuse_errors(file, source, &parsed)?;
    let has_module_syntax = parsed.module_record.has_module_syntax;
    // Early errors that the grammar alone does not see: a name declared twice, `break` outside a loop.
    let checked = SemanticBuilder::new()
        .with_check_syntax_error(true)
        .build(&parsed.program);
    if let Some(error) = checked.diagnostics.errors().next() {
        return Err(syntax_error(file, source, error));
    }
    Ok((facts(&parsed.program, source, format), has_module_syntax))
}

pub(super) fn refuse_errors(
    file: &str,
    source: &str,
    parsed: &ParserReturn<'_>,
) -> Result<(), TaskError> {
    match parsed.diagnostics.errors().next() {
        Some(error) => Err(syntax_error(file, source, error)),
        None if parsed.panicked => Err(syntax_error(
            file,
            source,
            &OxcDiagnostic::error("the parser gave up on this text"),
        )),
        None => Ok(()),
    }
}

pub(super) fn syntax_error(file: &str, source: &str, error: &OxcDiagnostic) -> TaskError {
    let offset = error
        .labels
        .first()
        .map_or(0, oxc::diagnostics::LabeledSpan::offset);
    let at = position(source, offset as usize);
    let help = error
        .help
        .as_deref()
        .map(|help| format!(" ({help})"))
        .unwrap_or_default();
    TaskError::Syntax {
        file: file.to_owned(),
        line: at.line,
        column: at.column,
        message: format!("{}{help}{}", error.message, code_frame(source, at)),
    }
}

/// Whether a file name has this ending, in any case.
pub(super) fn has_ending(file: &str, ending: &str) -> bool {
    file.rsplit_once('.')
        .is_some_and(|(_, found)| found.eq_ignore_ascii_case(ending))
}

/// Of two errors for a text that is neither script nor module, the one to show.
fn mentions_module_syntax(source: &str) -> bool {
    source.lines().any(|line| {
        let line = line.trim_start();
        line.starts_with("export ") || line.starts_with("import ")
    })
}
