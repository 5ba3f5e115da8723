//! What publishing wants to know of a parsed file.

use oxc::ast::ast::{
    Argument, AssignmentExpression, AssignmentTarget, BindingPattern, CallExpression, Declaration,
    ExportAllDeclaration, ExportDefaultDeclarationKind, ExportFromDeclaration, Expression,
    FormalParameters, Function, ImportDeclaration, ImportExpression, ModuleExportName, Program,
    Statement, StringLiteral, TryStatement, VariableDeclaration,
};
use oxc::ast_visit::{Visit, walk};
use oxc::span::{GetSpan, Span};
use tasker_adaptor::Json;

use super::ModuleFormat;
use super::literal::literal;

/// What a file imports, exports and documents.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) format: ModuleFormat,
    pub(super) imports: Vec<Import>,
    /// Functions at the top level, in the order written.
    pub(super) functions: Vec<TopFunction>,
    pub(super) exports: Vec<Export>,
    pub(super) docs: Vec<DocBlock>,
}

/// An import of another module by a literal specifier.
#[derive(Debug)]
pub(super) struct Import {
    pub(super) specifier: String,
    pub(super) offset: u32,
    /// Inside `try`, or a dynamic import: the task may catch the failure.
    pub(super) guarded: bool,
}

/// A function that can be a task.
#[derive(Clone, Debug)]
pub(super) struct TopFunction {
    pub(super) name: Option<String>,
    pub(super) is_async: bool,
    /// Where a doc comment that belongs to it ends up: starts of its statement and of itself.
    pub(super) starts: Vec<u32>,
    pub(super) first: FirstParam,
}

/// The first parameter of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum FirstParam {
    /// It has none, or takes `...rest`.
    #[default]
    None,
    /// `input`, `input = {}`.
    Named(String),
    /// `{ a, b = 3 }`.
    Pattern(Vec<PatternField>),
}

/// A member of a destructured first parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PatternField {
    pub(super) name: String,
    pub(super) optional: bool,
    /// The default, when it is a literal.
    pub(super) default: Option<Json>,
}

/// Something exported.
#[derive(Debug)]
pub(super) struct Export {
    /// `default` also for `module.exports = …`.
    pub(super) name: String,
    pub(super) what: Exported,
    /// Start of the exporting statement.
    pub(super) start: u32,
}

/// What an export is.
#[derive(Debug)]
pub(super) enum Exported {
    Function(TopFunction),
    /// A name declared elsewhere in the file.
    Local(String),
    /// Something else: a value, or an export of another module.
    Other,
}

/// A JSDoc comment.
#[derive(Debug)]
pub(super) struct DocBlock {
    /// Text between `/**` and `*/`.
    pub(super) text: String,
    /// Start of the token after it.
    pub(super) attached_to: u32,
}

/// Collects the facts of a program that parsed without errors.
pub(super) fn facts(program: &Program<'_>, source: &str, format: ModuleFormat) -> Facts {
    let mut collector = Collector {
        facts: Facts {
            format,
            imports: Vec::new(),
            functions: Vec::new(),
            exports: Vec::new(),
            docs: Vec::new(),
        },
        try_depth: 0,
        statement: 0,
    };
    for comment in &program.comments {
        let text = comment.content_span().source_text(source);
        if comment.is_block() && text.starts_with('*') {
            collector.facts.docs.push(DocBlock {
                text: text[1..].to_owned(),
                attached_to: comment.attached_to,
            });
        }
    }
    for statement in &program.body {
        collector.statement = statement.span().start;
        collector.top_level(statement);
        collector.visit_statement(statement);
    }
    let mut facts = collector.facts;
    // `exports.run = run` names a function of the file.
    let functions = &facts.functions;
    for export in &mut facts.exports {
        if let Exported::Local(name) = &export.what
            && let Some(function) = functions
                .iter()
                .find(|function| function.name.as_deref() == Some(name))
        {
            export.what = Exported::Function(function.clone());
        }
    }
    facts
}

struct Collector {
    facts: Facts,
    try_depth: u32,
    /// Start of the top-level statement that is being visited.
    statement: u32,
}

impl Collector {
    fn top_level(&mut self, statement: &Statement<'_>) {
        let start = statement.span().start;
        match statement {
            Statement::FunctionDeclaration(function) => self.declare(function, start),
            Statement::VariableDeclaration(variables) => self.declare_variables(variables, start),
            Statement::ExportDefaultDeclaration(export) => {
                let what = match &export.declaration {
                    ExportDefaultDeclarationKind::FunctionDeclaration(function) => {
                        self.declare(function, start);
                        Exported::Function(from_function(function, start))
                    }
                    other => other
                        .as_expression()
                        .map_or(Exported::Other, |value| exported(value, start)),
                };
                self.export("default", what, start);
            }
            Statement::ExportDeclaration(export) => match &export.declaration {
                Declaration::FunctionDeclaration(function) => {
                    self.declare(function, start);
                    if let Some(id) = &function.id {
                        let what = Exported::Function(from_function(function, start));
                        self.export(id.name.as_str(), what, start);
                    }
                }
                Declaration::VariableDeclaration(variables) => {
                    self.declare_variables(variables, start);
                    for variable in &variables.declarations {
                        for name in variable.id.get_binding_identifiers() {
                            let name = name.name.as_str();
                            self.export(name, Exported::Local(name.to_owned()), start);
                        }
                    }
                }
                _ => {}
            },
            Statement::ExportNamedDeclaration(export) => {
                for specifier in &export.specifiers {
                    let name = export_name(&specifier.exported);
                    let local = export_name(&specifier.local);
                    self.export(&name, Exported::Local(local), start);
                }
            }
            Statement::ExportFromDeclaration(export) => {
                for specifier in &export.specifiers {
                    self.export(&export_name(&specifier.exported), Exported::Other, start);
                }
            }
            Statement::ExportAllDeclaration(export) => {
                let name = export.exported.as_ref().map_or("*".to_owned(), export_name);
                self.export(&name, Exported::Other, start);
            }
            _ => {}
        }
    }

    fn declare(&mut self, function: &Function<'_>, start: u32) {
        if function.id.is_some() {
            self.facts.functions.push(from_function(function, start));
        }
    }

    fn declare_variables(&mut self, variables: &VariableDeclaration<'_>, start: u32) {
        for variable in &variables.declarations {
            let (Some(id), Some(init)) =
                (variable.id.get_binding_identifier(), variable.init.as_ref())
            else {
                continue;
            };
            if let Exported::Function(mut function) = exported(init, start) {
                function.name = Some(id.name.as_str().to_owned());
                function.starts.push(variable.span.start);
                self.facts.functions.push(function);
            }
        }
    }

    fn export(&mut self, name: &str, what: Exported, start: u32) {
        self.facts.exports.push(Export {
            name: name.to_owned(),
            what,
            start,
        });
    }

    fn import(&mut self, specifier: &str, at: Span, guarded: bool) {
        self.facts.imports.push(Import {
            specifier: specifier.to_owned(),
            offset: at.start,
            guarded,
        });
    }
}

impl<'a> Visit<'a> for Collector {
    fn visit_try_statement(&mut self, it: &TryStatement<'a>) {
        // A catch clause makes the block safe; `try … finally` alone lets the error through.
        let guarded = u32::from(it.handler.is_some());
        self.try_depth += guarded;
        self.visit_block_statement(&it.block);
        self.try_depth -= guarded;
        if let Some(handler) = &it.handler {
            self.visit_catch_clause(handler);
        }
        if let Some(finalizer) = &it.finalizer {
            self.visit_block_statement(finalizer);
        }
    }

    fn visit_import_declaration(&mut self, it: &ImportDeclaration<'a>) {
        self.import(it.source.value.as_str(), it.span, false);
    }

    fn visit_export_all_declaration(&mut self, it: &ExportAllDeclaration<'a>) {
        self.import(it.source.value.as_str(), it.span, false);
    }

    fn visit_export_from_declaration(&mut self, it: &ExportFromDeclaration<'a>) {
        self.import(it.source.value.as_str(), it.span, false);
    }

    fn visit_import_expression(&mut self, it: &ImportExpression<'a>) {
        if let Some(specifier) = text(&it.source) {
            // It gives a promise, whose rejection the task may catch anywhere.
            self.import(&specifier, it.span, true);
        }
        walk::walk_import_expression(self, it);
    }

    fn visit_call_expression(&mut self, it: &CallExpression<'a>) {
        if it.callee.is_specific_id("require")
            && let Some(specifier) = it.arguments.first().and_then(argument_text)
        {
            self.import(&specifier, it.span, self.try_depth > 0);
        }
        // `Object.assign(exports, …)`, `Object.defineProperty(module.exports, …)`, `__exportStar(…, exports)`
        if self.facts.format == ModuleFormat::CommonJs
            && it
                .arguments
                .iter()
                .filter_map(Argument::as_expression)
                .any(is_exports)
        {
            self.export("*", Exported::Other, self.statement);
        }
        walk::walk_call_expression(self, it);
    }

    fn visit_assignment_expression(&mut self, it: &AssignmentExpression<'a>) {
        if self.facts.format == ModuleFormat::CommonJs
            && let Some(name) = exported_name(&it.left)
        {
            let what = exported(assigned_value(&it.right), self.statement);
            self.export(&name, what, self.statement);
        }
        walk::walk_assignment_expression(self, it);
    }
}

/// `module.exports` gives `default`, `exports.run` gives `run`, a computed name `*`, anything else `None`.
fn exported_name(target: &AssignmentTarget<'_>) -> Option<String> {
    let member = target.as_member_expression()?;
    let name = member.static_property_name().map(str::to_owned);
    if member.object().is_specific_id("module") && name.as_deref() == Some("exports") {
        return Some("default".to_owned());
    }
    is_exports(member.object()).then(|| name.unwrap_or_else(|| "*".to_owned()))
}

/// Whether it is `exports` or `module.exports`.
fn is_exports(value: &Expression<'_>) -> bool {
    value.is_specific_id("exports")
        || value
            .get_inner_expression()
            .as_member_expression()
            .is_some_and(|member| {
                member.object().is_specific_id("module")
                    && member.static_property_name() == Some("exports")
            })
}

/// The last value of `module.exports = exports = value`.
fn assigned_value<'e, 'a>(mut value: &'e Expression<'a>) -> &'e Expression<'a> {
    while let Expression::AssignmentExpression(inner) = value {
        value = &inner.right;
    }
    value
}

fn exported(value: &Expression<'_>, start: u32) -> Exported {
    match value.get_inner_expression() {
        Expression::FunctionExpression(function) => {
            Exported::Function(from_function(function, start))
        }
        Expression::ArrowFunctionExpression(arrow) => Exported::Function(TopFunction {
            name: None,
            is_async: arrow.r#async,
            starts: vec![start, arrow.span.start, value.span().start],
            first: first_param(&arrow.params),
        }),
        Expression::Identifier(name) => Exported::Local(name.name.as_str().to_owned()),
        _ => Exported::Other,
    }
}

fn from_function(function: &Function<'_>, start: u32) -> TopFunction {
    TopFunction {
        name: function.id.as_ref().map(|id| id.name.as_str().to_owned()),
        is_async: function.r#async,
        starts: vec![start, function.span.start],
        first: first_param(&function.params),
    }
}

fn first_param(params: &FormalParameters<'_>) -> FirstParam {
    match params.items.first().map(|param| &param.pattern) {
        Some(BindingPattern::BindingIdentifier(id)) => {
            FirstParam::Named(id.name.as_str().to_owned())
        }
        Some(BindingPattern::ObjectPattern(pattern)) => FirstParam::Pattern(
            pattern
                .properties
                .iter()
                .filter_map(|property| {
                    let default = match &property.value {
                        BindingPattern::AssignmentPattern(assigned) => Some(&assigned.right),
                        _ => None,
                    };
                    Some(PatternField {
                        name: property.key.static_name()?.into_owned(),
                        optional: default.is_some(),
                        default: default.and_then(literal),
                    })
                })
                .collect(),
        ),
        _ => FirstParam::None,
    }
}

fn export_name(name: &ModuleExportName<'_>) -> String {
    name.name().as_str().to_owned()
}

fn argument_text(argument: &Argument<'_>) -> Option<String> {
    argument.as_expression().and_then(text)
}

/// The text of a string literal, or of a template without substitutions.
fn text(value: &Expression<'_>) -> Option<String> {
    match value.get_inner_expression() {
        Expression::StringLiteral(literal) => Some(string(literal)),
        Expression::TemplateLiteral(template) if template.expressions.is_empty() => template
            .quasis
            .first()
            .and_then(|part| part.value.cooked)
            .map(|cooked| cooked.as_str().to_owned()),
        _ => None,
    }
}

fn string(literal: &StringLiteral<'_>) -> String {
    literal.value.as_str().to_owned()
}
