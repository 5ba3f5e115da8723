//! Types of JSDoc tags as shapes.
//!
//! The text is read as a TypeScript type, which covers nearly all of JSDoc; what is only JSDoc
//! (`Array.<T>`, `string=`, `...T`, `?T`, `*`) is rewritten or read by the same parser.

use oxc::allocator::Allocator;
use oxc::ast::ast::{
    Expression, PropertyKey, Statement, TSLiteral, TSSignature, TSType, TSTypeName,
};
use oxc::parser::Parser;
use oxc::span::SourceType;
use tasker_adaptor::Json;

use super::literal::literal;
use super::nesting;
use super::shape::{Kind, Member, Shape};

/// A type, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DocType {
    pub(super) shape: Shape,
    /// `{string=}`: the parameter may be left out.
    pub(super) optional: bool,
    /// Names that stand for nothing known, and why a text could not be read.
    pub(super) warnings: Vec<String>,
}

/// Reads the text between the braces of a tag.
pub(super) fn doc_type(text: &str) -> DocType {
    let mut read = DocType::default();
    let mut text = text.trim();
    if let Some(rest) = text.strip_suffix('=') {
        read.optional = true;
        text = rest.trim_end();
    }
    let rest_parameter = text.strip_prefix("...");
    let text = rest_parameter.unwrap_or(text).trim();
    if text.is_empty() {
        return read;
    }
    // `*` is `any` in JSDoc, except inside a literal.
    let rewritten = if text.contains(['"', '\'', '`']) {
        text.to_owned()
    } else {
        text.replace(".<", "<").replace('*', "any")
    };
    let source = format!("type T = ({rewritten}\n)");
    let unreadable = |read: &mut DocType| {
        read.warnings.push(format!(
            "the type {{{text}}} is not one that can be read; it counts as any"
        ));
    };
    if nesting::check_types("type", &source).is_err() {
        unreadable(&mut read);
        return read;
    }
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, &source, SourceType::ts()).parse();
    match parsed.program.body.first() {
        Some(Statement::TSTypeAliasDeclaration(alias))
            if !parsed.diagnostics.has_errors() && parsed.program.body.len() == 1 =>
        {
            read.shape = Reader {
                warnings: &mut read.warnings,
                depth: 0,
            }
            .shape(&alias.type_annotation);
        }
        _ => unreadable(&mut read),
    }
    if rest_parameter.is_some() {
        read.shape = Shape::new(Kind::Array(Box::new(std::mem::take(&mut read.shape))));
    }
    read
}

/// Types that nest deeper count as any: shapes are written, compared and dropped by recursion.
const DEPTH: u32 = 64;

struct Reader<'w> {
    warnings: &'w mut Vec<String>,
    depth: u32,
}

impl Reader<'_> {
    fn shape(&mut self, of: &TSType<'_>) -> Shape {
        if self.depth >= DEPTH {
            return Shape::default();
        }
        self.depth += 1;
        let shape = self.shape_here(of);
        self.depth -= 1;
        shape
    }

    fn shape_here(&mut self, of: &TSType<'_>) -> Shape {
        let kind = match of {
            TSType::TSParenthesizedType(inner) => return self.shape(&inner.type_annotation),
            TSType::TSBooleanKeyword(_) => Kind::Boolean,
            TSType::TSNumberKeyword(_) => Kind::Number,
            TSType::TSStringKeyword(_) | TSType::TSTemplateLiteralType(_) => Kind::String,
            TSType::TSBigIntKeyword(_) => Kind::Integer,
            TSType::TSObjectKeyword(_) => Kind::Object(Vec::new()),
            TSType::TSNullKeyword(_) | TSType::TSVoidKeyword(_) | TSType::TSUndefinedKeyword(_) => {
                Kind::Null
            }
            TSType::TSArrayType(array) => Kind::Array(Box::new(self.shape(&array.element_type))),
            TSType::TSTypeOperatorType(operator) => return self.shape(&operator.type_annotation),
            TSType::TSTupleType(tuple) => {
                let items: Vec<_> = tuple
                    .element_types
                    .iter()
                    .filter_map(|element| element.as_ts_type())
                    .map(|element| self.shape(element))
                    .collect();
                Kind::Array(Box::new(union(items)))
            }
            TSType::TSUnionType(types) => {
                let shapes = types.types.iter().map(|one| self.shape(one)).collect();
                return union(shapes);
            }
            TSType::TSIntersectionType(types) => {
                let shapes = types.types.iter().map(|one| self.shape(one)).collect();
                return intersection(shapes);
            }
            TSType::TSLiteralType(value) => Self::literal(&value.literal),
            TSType::TSTypeLiteral(object) => self.object(&object.members),
            TSType::JSDocNullableType(inner) => {
                return self.shape(&inner.type_annotation).nullable();
            }
            TSType::JSDocNonNullableType(inner) => {
                let mut shape = self.shape(&inner.type_annotation);
                shape.nullable = false;
                return shape;
            }
            TSType::TSTypeReference(reference) => {
                let arguments: Vec<&TSType<'_>> = reference
                    .type_arguments
                    .as_ref()
                    .map(|arguments| arguments.params.iter().collect())
                    .unwrap_or_default();
                let name = match &reference.type_name {
                    TSTypeName::IdentifierReference(id) => id.name.as_str(),
                    // `google.Domain`: somebody else's type.
                    TSTypeName::QualifiedName(_) | TSTypeName::ThisExpression(_) => "",
                };
                return self.reference(name, &arguments);
            }
            _ => Kind::Any,
        };
        Shape::new(kind)
    }

    fn reference(&mut self, name: &str, arguments: &[&TSType<'_>]) -> Shape {
        let argument = |reader: &mut Self, index: usize| {
            arguments
                .get(index)
                .map_or_else(Shape::default, |argument| reader.shape(argument))
        };
        let kind = match name.to_ascii_lowercase().as_str() {
            "array" | "readonlyarray" | "set" | "iterable" => {
                Kind::Array(Box::new(argument(self, 0)))
            }
            "promise" | "promiselike" | "readonly" | "partial" | "required" | "nonnullable"
            | "awaited" => return argument(self, 0),
            "object" | "record" | "map" => match arguments.len() {
                0 => Kind::Object(Vec::new()),
                count => {
                    let values = argument(self, count - 1);
                    if values == Shape::default() {
                        Kind::Object(Vec::new())
                    } else {
                        Kind::Map(Box::new(values))
                    }
                }
            },
            "string" | "uuid" | "url" | "regexp" => Kind::String,
            "number" | "float" | "double" | "decimal" => Kind::Number,
            "integer" | "int" | "long" | "bigint" => Kind::Integer,
            "boolean" | "bool" => Kind::Boolean,
            "date" | "datetime" => Kind::DateTime,
            "null" | "undefined" | "void" => Kind::Null,
            "any" | "mixed" | "unknown" | "json" => Kind::Any,
            "error" => Kind::Object(Vec::new()),
            _ => {
                self.warnings.push(if name.is_empty() {
                    "a type of another module counts as any".to_owned()
                } else {
                    format!("the type {name} is not known here and counts as any")
                });
                Kind::Any
            }
        };
        Shape::new(kind)
    }

    fn literal(value: &TSLiteral<'_>) -> Kind {
        let json = match value {
            TSLiteral::StringLiteral(text) => Json::from(text.value.as_str()).ok(),
            TSLiteral::BooleanLiteral(flag) => Json::from(&flag.value).ok(),
            TSLiteral::NumericLiteral(number) => Json::parse(number_text(number.value)).ok(),
            TSLiteral::UnaryExpression(unary) => match &unary.argument {
                Expression::NumericLiteral(number) => Json::parse(number_text(-number.value)).ok(),
                other => literal(other),
            },
            _ => None,
        };
        json.map_or(Kind::Any, |json| Kind::Enum(vec![json]))
    }

    fn object(&mut self, signatures: &[TSSignature<'_>]) -> Kind {
        let mut members = Vec::<Member>::new();
        let mut rest = None;
        for signature in signatures {
            match signature {
                TSSignature::TSPropertySignature(property) => {
                    let name = match &property.key {
                        PropertyKey::StaticIdentifier(id) => id.name.as_str().to_owned(),
                        key => match key.static_name() {
                            Some(name) => name.into_owned(),
                            None => continue,
                        },
                    };
                    let shape = property
                        .type_annotation
                        .as_ref()
                        .map_or_else(Shape::default, |of| self.shape(&of.type_annotation));
                    members.push(Member {
                        name,
                        optional: property.optional,
                        shape,
                    });
                }
                TSSignature::TSIndexSignature(index) => {
                    rest = Some(self.shape(&index.type_annotation.type_annotation));
                }
                _ => {}
            }
        }
        match rest {
            Some(values) if members.is_empty() && values != Shape::default() => {
                Kind::Map(Box::new(values))
            }
            _ => Kind::Object(members),
        }
    }
}

fn number_text(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{}", value as i64)
    } else {
        format!("{value:?}")
    }
}

/// One of several shapes: `null` becomes a flag, literals an enumeration.
fn union(shapes: Vec<Shape>) -> Shape {
    let mut nullable = false;
    let mut values = Vec::new();
    let mut others = Vec::<Shape>::new();
    let mut flat = Vec::new();
    for shape in shapes {
        match shape {
            Shape {
                kind: Kind::Union(inner),
                nullable: inner_nullable,
                ..
            } => {
                nullable |= inner_nullable;
                flat.extend(inner);
            }
            other => flat.push(other),
        }
    }
    for mut shape in flat {
        nullable |= std::mem::take(&mut shape.nullable);
        match shape.kind {
            Kind::Null => nullable = true,
            Kind::Enum(literals) => {
                for literal in literals {
                    if !values.contains(&literal) {
                        values.push(literal);
                    }
                }
            }
            // Anything or something is anything.
            Kind::Any => return Shape::default(),
            _ if others.contains(&shape) => {}
            _ => others.push(shape),
        }
    }
    if !values.is_empty() {
        others.push(Shape::new(Kind::Enum(values)));
    }
    let mut shape = match others.len() {
        0 if nullable => return Shape::new(Kind::Null),
        0 => Shape::default(),
        1 => others.remove(0),
        _ => Shape::new(Kind::Union(others)),
    };
    shape.nullable = nullable;
    shape
}

/// All of several shapes: the members of all objects.
fn intersection(shapes: Vec<Shape>) -> Shape {
    let mut all = Vec::<Member>::new();
    for shape in shapes {
        let Kind::Object(members) = shape.kind else {
            return Shape::default();
        };
        for member in members {
            if all.iter().all(|known| known.name != member.name) {
                all.push(member);
            }
        }
    }
    Shape::new(Kind::Object(all))
}

#[cfg(test)]
mod tests {
    use super::super::shape::Dialect;
    use super::*;

    fn schema(text: &str) -> String {
        let read = doc_type(text);
        serde_json::to_string(&read.shape.written(Dialect::JsonSchema)).unwrap()
    }

    #[test]
    fn types_become_json_schema() {
        for (text, expected) in [
            ("string", r#"{"type":"string"}"#),
            ("String", r#"{"type":"string"}"#),
            ("integer", r#"{"type":"integer"}"#),
            ("number", r#"{"type":"number"}"#),
            ("Date", r#"{"type":"string","format":"date-time"}"#),
            (
                "Array<string>",
                r#"{"type":"array","items":{"type":"string"}}"#,
            ),
            (
                "Array.<string>",
                r#"{"type":"array","items":{"type":"string"}}"#,
            ),
            (
                "string[][]",
                r#"{"type":"array","items":{"type":"array","items":{"type":"string"}}}"#,
            ),
            ("Array", r#"{"type":"array"}"#),
            ("Object", r#"{"type":"object"}"#),
            (
                "Object<string, number>",
                r#"{"type":"object","additionalProperties":{"type":"number"}}"#,
            ),
            (
                "Record<string, boolean>",
                r#"{"type":"object","additionalProperties":{"type":"boolean"}}"#,
            ),
            (
                "(string|number)",
                r#"{"anyOf":[{"type":"string"},{"type":"number"}]}"#,
            ),
            ("?string", r#"{"type":["string","null"]}"#),
            ("string|null", r#"{"type":["string","null"]}"#),
            ("'a'|'b'", r#"{"type":"string","enum":["a","b"]}"#),
            (
                "\"a\"|null",
                r#"{"type":["string","null"],"enum":["a",null]}"#,
            ),
            ("1|2", r#"{"type":"number","enum":[1,2]}"#),
            (
                "{a: string, b?: number}",
                r#"{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"number"}},"required":["a"]}"#,
            ),
            (
                "Promise<{ok: boolean}>",
                r#"{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"]}"#,
            ),
            ("*", "{}"),
            ("any", "{}"),
            ("string|*", "{}"),
            ("...number", r#"{"type":"array","items":{"type":"number"}}"#),
            (
                "[string, number]",
                r#"{"type":"array","items":{"anyOf":[{"type":"string"},{"type":"number"}]}}"#,
            ),
            (
                "{a: string} & {b: number}",
                r#"{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"number"}},"required":["a","b"]}"#,
            ),
            ("void", r#"{"type":"null"}"#),
        ] {
            assert_eq!(schema(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_anything_with_a_warning() {
        for text in [
            "Customer",
            "google.Domain",
            "{{{",
            "string string",
            "a; b",
            ")(",
        ] {
            let read = doc_type(text);
            assert_eq!(read.shape, Shape::default(), "{text}");
            assert_eq!(read.warnings.len(), 1, "{text}: {:?}", read.warnings);
        }
        assert!(doc_type("string=").optional);
        assert!(doc_type("").warnings.is_empty());
    }
}
