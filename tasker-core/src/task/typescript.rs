//! TypeScript to JavaScript by blanking out the types.
//!
//! Types become blanks of the same width, so that lines and columns in error stacks are those of the author's file.
//! Nothing is moved or rewritten; syntax that is more than types (`enum`, `namespace`, parameter properties,
//! `import x = …`, decorators) is refused.

#[cfg(not(feature = "typescript"))]
pub(super) fn strip(file: &str, _source: &str) -> Result<String, super::TaskError> {
    Err(super::TaskError::TypeScriptOff {
        file: file.to_owned(),
    })
}

#[cfg(feature = "typescript")]
pub(super) use blank::strip;

#[cfg(feature = "typescript")]
mod blank {
    use oxc::allocator::Allocator;
    use oxc::ast::ast::{
        AccessorProperty, Class, Declaration, Decorator, ExportAllDeclaration, ExportDeclaration,
        ExportDefaultDeclaration, ExportDefaultDeclarationKind, ExportFromDeclaration,
        ExportNamedDeclaration, ExportSpecifier, FormalParameter, ImportDeclaration,
        ImportOrExportKind, ImportSpecifier, MethodDefinition, MethodDefinitionType,
        PropertyDefinition, PropertyDefinitionType, Statement, TSAsExpression, TSEnumDeclaration,
        TSExportAssignment, TSExternalModuleDeclaration, TSGlobalDeclaration,
        TSImportEqualsDeclaration, TSIndexSignature, TSInstantiationExpression,
        TSInterfaceDeclaration, TSNamespaceDeclaration, TSNamespaceExportDeclaration,
        TSNonNullExpression, TSSatisfiesExpression, TSThisParameter, TSTypeAliasDeclaration,
        TSTypeAnnotation, TSTypeAssertion, TSTypeParameterDeclaration,
        TSTypeParameterInstantiation, VariableDeclarator,
    };
    use oxc::ast_visit::{Visit, walk};
    use oxc::parser::Parser;
    use oxc::span::{GetSpan, SourceType, Span};

    use super::super::TaskError;
    use super::super::nesting;
    use super::super::parse::refuse_errors;
    use super::super::position::{code_frame, position};

    /// Blanks out the types of a file. Call it on the parser's stack.
    pub(in super::super) fn strip(file: &str, source: &str) -> Result<String, TaskError> {
        let source = source.strip_prefix('\u{feff}').unwrap_or(source);
        nesting::check_types(file, source)?;
        let allocator = Allocator::default();
        let parsed = Parser::new(&allocator, source, SourceType::ts()).parse();
        refuse_errors(file, source, &parsed)?;
        let mut eraser = Eraser {
            source,
            fate: vec![Fate::Kept; source.len()],
            refused: None,
        };
        eraser.visit_program(&parsed.program);
        match eraser.refused {
            None => Ok(eraser.text()),
            Some((at, what)) => {
                let at = position(source, at as usize);
                Err(TaskError::Syntax {
                    file: file.to_owned(),
                    line: at.line,
                    column: at.column,
                    message: format!(
                        "{what} is more than a type and cannot be blanked out; write it as JavaScript{}",
                        code_frame(source, at)
                    ),
                })
            }
        }
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Fate {
        Kept,
        Blank,
        Semicolon,
    }

    struct Eraser<'s> {
        source: &'s str,
        /// What becomes of each byte.
        fate: Vec<Fate>,
        refused: Option<(u32, &'static str)>,
    }

    impl Eraser<'_> {
        fn text(&self) -> String {
            self.source
                .char_indices()
                .map(|(index, c)| match self.fate[index] {
                    Fate::Semicolon => ';',
                    Fate::Blank if !matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}') => ' ',
                    _ => c,
                })
                .collect()
        }

        fn blank(&mut self, start: u32, end: u32) {
            for fate in &mut self.fate[start as usize..end as usize] {
                *fate = Fate::Blank;
            }
        }

        fn blank_span(&mut self, span: Span) {
            self.blank(span.start, span.end);
        }

        /// A statement or member that is only a type leaves an empty statement, so that its neighbours stay apart.
        fn blank_statement(&mut self, span: Span) {
            self.blank_span(span);
            self.fate[span.start as usize] = Fate::Semicolon;
        }

        /// Blanks an item of a list with the comma after it.
        fn blank_item(&mut self, span: Span) {
            let rest = &self.source[span.end as usize..];
            let comma = rest.len() - rest.trim_start().len();
            let with_comma = u32::from(rest[comma..].starts_with(',')) * (comma as u32 + 1);
            self.blank(span.start, span.end + with_comma);
        }

        /// Blanks one sign between two places, if it is there: `?` and `!` after names.
        fn blank_sign(&mut self, from: u32, to: u32) {
            if let Some(index) = self.source[from as usize..to as usize].find(['?', '!']) {
                self.blank(from + index as u32, from + index as u32 + 1);
            }
        }

        /// Blanks the modifiers that JavaScript does not have, between the start of a member and its name.
        fn blank_modifiers(&mut self, from: u32, to: u32) {
            const WORDS: [&str; 7] = [
                "public",
                "private",
                "protected",
                "readonly",
                "override",
                "abstract",
                "declare",
            ];
            let text = &self.source[from as usize..to as usize];
            let mut at = 0;
            for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
                if WORDS.contains(&word) {
                    let start = from + at as u32;
                    self.blank(start, start + word.len() as u32);
                }
                at += word.len() + 1;
            }
        }

        /// After `x as T` a line may begin with a bracket that TypeScript reads as a new statement.
        fn keep_apart(&mut self, end: u32) {
            let rest = &self.source[end as usize..];
            let next = rest.trim_start();
            if rest[..rest.len() - next.len()].contains('\n') && next.starts_with(['(', '[', '`']) {
                self.fate[end as usize - 1] = Fate::Semicolon;
            }
        }

        fn refuse(&mut self, at: Span, what: &'static str) {
            self.refused.get_or_insert((at.start, what));
        }
    }

    fn is_type(kind: ImportOrExportKind) -> bool {
        kind == ImportOrExportKind::Type
    }

    fn only_types(declaration: &Declaration<'_>) -> bool {
        match declaration {
            Declaration::TSTypeAliasDeclaration(_) | Declaration::TSInterfaceDeclaration(_) => true,
            Declaration::FunctionDeclaration(function) => {
                function.body.is_none() || function.declare
            }
            other => other.declare(),
        }
    }

    impl<'a> Visit<'a> for Eraser<'_> {
        fn visit_statement(&mut self, it: &Statement<'a>) {
            if it.as_declaration().is_some_and(only_types) {
                self.blank_statement(it.span());
            } else {
                walk::walk_statement(self, it);
            }
        }

        fn visit_export_declaration(&mut self, it: &ExportDeclaration<'a>) {
            if only_types(&it.declaration) {
                self.blank_statement(it.span);
            } else {
                walk::walk_export_declaration(self, it);
            }
        }

        fn visit_export_default_declaration(&mut self, it: &ExportDefaultDeclaration<'a>) {
            match &it.declaration {
                ExportDefaultDeclarationKind::TSInterfaceDeclaration(_) => {
                    self.blank_statement(it.span);
                }
                ExportDefaultDeclarationKind::FunctionDeclaration(function)
                    if function.body.is_none() =>
                {
                    self.blank_statement(it.span);
                }
                _ => walk::walk_export_default_declaration(self, it),
            }
        }

        fn visit_import_declaration(&mut self, it: &ImportDeclaration<'a>) {
            if is_type(it.import_kind) {
                self.blank_statement(it.span);
            } else {
                walk::walk_import_declaration(self, it);
            }
        }

        fn visit_import_specifier(&mut self, it: &ImportSpecifier<'a>) {
            if is_type(it.import_kind) {
                self.blank_item(it.span);
            }
        }

        fn visit_export_named_declaration(&mut self, it: &ExportNamedDeclaration<'a>) {
            if is_type(it.export_kind) {
                self.blank_statement(it.span);
            } else {
                walk::walk_export_named_declaration(self, it);
            }
        }

        fn visit_export_from_declaration(&mut self, it: &ExportFromDeclaration<'a>) {
            if is_type(it.export_kind) {
                self.blank_statement(it.span);
            } else {
                walk::walk_export_from_declaration(self, it);
            }
        }

        fn visit_export_specifier(&mut self, it: &ExportSpecifier<'a>) {
            if is_type(it.export_kind) {
                self.blank_item(it.span);
            }
        }

        fn visit_export_all_declaration(&mut self, it: &ExportAllDeclaration<'a>) {
            if is_type(it.export_kind) {
                self.blank_statement(it.span);
            }
        }

        fn visit_ts_type_annotation(&mut self, it: &TSTypeAnnotation<'a>) {
            self.blank_span(it.span);
        }

        fn visit_ts_type_parameter_declaration(&mut self, it: &TSTypeParameterDeclaration<'a>) {
            self.blank_span(it.span);
        }

        fn visit_ts_type_parameter_instantiation(&mut self, it: &TSTypeParameterInstantiation<'a>) {
            self.blank_span(it.span);
        }

        fn visit_ts_this_parameter(&mut self, it: &TSThisParameter<'a>) {
            self.blank_item(it.span);
        }

        fn visit_formal_parameter(&mut self, it: &FormalParameter<'a>) {
            if it.accessibility.is_some() || it.readonly || it.r#override {
                self.refuse(it.span, "a parameter that is a property");
            }
            if it.optional {
                let end = it
                    .type_annotation
                    .as_ref()
                    .map_or(it.span.end, |of| of.span.start);
                self.blank_sign(it.pattern.span().end, end);
            }
            walk::walk_formal_parameter(self, it);
        }

        fn visit_variable_declarator(&mut self, it: &VariableDeclarator<'a>) {
            if it.definite {
                let end = it
                    .type_annotation
                    .as_ref()
                    .map_or(it.span.end, |of| of.span.start);
                self.blank_sign(it.id.span().end, end);
            }
            walk::walk_variable_declarator(self, it);
        }

        fn visit_class(&mut self, it: &Class<'a>) {
            if it.r#abstract {
                let name = it
                    .id
                    .as_ref()
                    .map_or(it.body.span.start, |id| id.span.start);
                self.blank_modifiers(it.span.start, name);
            }
            if let (Some(first), Some(last)) = (it.implements.first(), it.implements.last()) {
                let before = &self.source[..first.span.start as usize];
                if let Some(word) = before.rfind("implements") {
                    self.blank(word as u32, last.span.end);
                }
            }
            walk::walk_class(self, it);
        }

        fn visit_property_definition(&mut self, it: &PropertyDefinition<'a>) {
            if it.declare || it.r#type == PropertyDefinitionType::TSAbstractPropertyDefinition {
                self.blank_statement(it.span);
                return;
            }
            self.blank_modifiers(it.span.start, it.key.span().start);
            if it.optional || it.definite {
                let end = it
                    .type_annotation
                    .as_ref()
                    .map_or(it.span.end, |of| of.span.start);
                self.blank_sign(it.key.span().end, end);
            }
            walk::walk_property_definition(self, it);
        }

        fn visit_accessor_property(&mut self, it: &AccessorProperty<'a>) {
            self.refuse(it.span, "an accessor field");
        }

        fn visit_method_definition(&mut self, it: &MethodDefinition<'a>) {
            if it.value.body.is_none()
                || it.r#type == MethodDefinitionType::TSAbstractMethodDefinition
            {
                self.blank_statement(it.span);
                return;
            }
            self.blank_modifiers(it.span.start, it.key.span().start);
            if it.optional {
                self.blank_sign(it.key.span().end, it.value.params.span.start);
            }
            walk::walk_method_definition(self, it);
        }

        fn visit_ts_index_signature(&mut self, it: &TSIndexSignature<'a>) {
            self.blank_statement(it.span);
        }

        fn visit_ts_as_expression(&mut self, it: &TSAsExpression<'a>) {
            self.blank(it.expression.span().end, it.span.end);
            self.keep_apart(it.span.end);
            self.visit_expression(&it.expression);
        }

        fn visit_ts_satisfies_expression(&mut self, it: &TSSatisfiesExpression<'a>) {
            self.blank(it.expression.span().end, it.span.end);
            self.keep_apart(it.span.end);
            self.visit_expression(&it.expression);
        }

        fn visit_ts_type_assertion(&mut self, it: &TSTypeAssertion<'a>) {
            self.blank(it.span.start, it.expression.span().start);
            self.visit_expression(&it.expression);
        }

        fn visit_ts_non_null_expression(&mut self, it: &TSNonNullExpression<'a>) {
            self.blank(it.expression.span().end, it.span.end);
            self.visit_expression(&it.expression);
        }

        fn visit_ts_instantiation_expression(&mut self, it: &TSInstantiationExpression<'a>) {
            self.blank(it.expression.span().end, it.span.end);
            self.visit_expression(&it.expression);
        }

        fn visit_ts_type_alias_declaration(&mut self, it: &TSTypeAliasDeclaration<'a>) {
            self.blank_statement(it.span);
        }

        fn visit_ts_interface_declaration(&mut self, it: &TSInterfaceDeclaration<'a>) {
            self.blank_statement(it.span);
        }

        fn visit_ts_global_declaration(&mut self, it: &TSGlobalDeclaration<'a>) {
            self.blank_statement(it.span);
        }

        fn visit_ts_namespace_export_declaration(&mut self, it: &TSNamespaceExportDeclaration<'a>) {
            self.blank_statement(it.span);
        }

        fn visit_ts_enum_declaration(&mut self, it: &TSEnumDeclaration<'a>) {
            self.refuse(it.span, "an enum");
        }

        fn visit_ts_namespace_declaration(&mut self, it: &TSNamespaceDeclaration<'a>) {
            self.refuse(it.span, "a namespace");
        }

        fn visit_ts_external_module_declaration(&mut self, it: &TSExternalModuleDeclaration<'a>) {
            self.blank_statement(it.span);
        }

        fn visit_ts_import_equals_declaration(&mut self, it: &TSImportEqualsDeclaration<'a>) {
            self.refuse(it.span, "an import with =");
        }

        fn visit_ts_export_assignment(&mut self, it: &TSExportAssignment<'a>) {
            self.refuse(it.span, "an export with =");
        }

        fn visit_decorator(&mut self, it: &Decorator<'a>) {
            self.refuse(it.span, "a decorator");
        }
    }
}
