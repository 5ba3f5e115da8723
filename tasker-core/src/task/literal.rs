//! JavaScript literals as JSON text, for defaults.

use std::fmt::Write as _;

use oxc::allocator::Allocator;
use oxc::ast::ast::{ArrayExpressionElement, Expression, ObjectPropertyKind, PropertyKind};
use oxc::parser::Parser;
use oxc::span::SourceType;
use oxc::syntax::operator::UnaryOperator;
use tasker_adaptor::Json;

use super::nesting;

/// The JSON value of a literal expression: text, number, boolean, `null`, and arrays and objects of them.
/// `undefined`, calls, names and everything else that must be computed is `None`.
pub(super) fn literal(value: &Expression<'_>) -> Option<Json> {
    let mut text = String::new();
    write(value, 0, &mut text)?;
    Json::parse(text).ok()
}

/// The JSON value of a literal given as text; `None` when it is not one literal.
pub(super) fn parse_literal(text: &str) -> Option<Json> {
    nesting::check("default", text).ok()?;
    let allocator = Allocator::default();
    let value = Parser::new(&allocator, text, SourceType::mjs())
        .parse_expression()
        .ok()?;
    literal(&value)
}

fn write(value: &Expression<'_>, depth: u32, out: &mut String) -> Option<()> {
    /// Below the depth at which serde_json stops reading.
    const DEPTH: u32 = 64;
    if depth > DEPTH {
        return None;
    }
    match value.without_parentheses() {
        Expression::NullLiteral(_) => out.push_str("null"),
        Expression::BooleanLiteral(literal) => {
            out.push_str(if literal.value { "true" } else { "false" });
        }
        Expression::NumericLiteral(literal) => number(literal.value, out)?,
        Expression::UnaryExpression(unary) => {
            let Expression::NumericLiteral(literal) = unary.argument.without_parentheses() else {
                return None;
            };
            match unary.operator {
                UnaryOperator::UnaryNegation => number(-literal.value, out)?,
                UnaryOperator::UnaryPlus => number(literal.value, out)?,
                _ => return None,
            }
        }
        Expression::StringLiteral(literal) => {
            // Lone surrogates are escaped inside oxc's text; such a default is not worth decoding.
            if literal.lone_surrogates {
                return None;
            }
            quote(literal.value.as_str(), out)?;
        }
        Expression::TemplateLiteral(template) if template.expressions.is_empty() => {
            quote(template.quasis.first()?.value.cooked?.as_str(), out)?;
        }
        Expression::ArrayExpression(array) => {
            out.push('[');
            for (index, element) in array.elements.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                match element {
                    ArrayExpressionElement::SpreadElement(_) => return None,
                    ArrayExpressionElement::Elision(_) => out.push_str("null"),
                    other => write(other.as_expression()?, depth + 1, out)?,
                }
            }
            out.push(']');
        }
        Expression::ObjectExpression(object) => {
            out.push('{');
            for (index, property) in object.properties.iter().enumerate() {
                let ObjectPropertyKind::ObjectProperty(property) = property else {
                    return None;
                };
                if property.kind != PropertyKind::Init || property.computed || property.method {
                    return None;
                }
                if index > 0 {
                    out.push(',');
                }
                quote(&property.key.static_name()?, out)?;
                out.push(':');
                write(&property.value, depth + 1, out)?;
            }
            out.push('}');
        }
        _ => return None,
    }
    Some(())
}

fn number(value: f64, out: &mut String) -> Option<()> {
    /// Beyond this a whole number is not exact in JavaScript, and its short form is clearer.
    const EXACT: f64 = 9_007_199_254_740_991.0;
    if !value.is_finite() {
        return None;
    }
    if value.fract() == 0.0 && value.abs() <= EXACT {
        let _ = write!(out, "{}", value as i64);
    } else {
        let _ = write!(out, "{value:?}");
    }
    Some(())
}

fn quote(text: &str, out: &mut String) -> Option<()> {
    out.push_str(&serde_json::to_string(text).ok()?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_become_json_and_computed_values_do_not() {
        for (text, json) in [
            ("3", Some("3")),
            ("0.7", Some("0.7")),
            ("-1.5e3", Some("-1500")),
            ("0x10", Some("16")),
            ("\"gpt-4o\"", Some("\"gpt-4o\"")),
            ("'it\\'s'", Some("\"it's\"")),
            ("`plain`", Some("\"plain\"")),
            ("true", Some("true")),
            ("null", Some("null")),
            ("[]", Some("[]")),
            ("[1, 'b', [null]]", Some("[1,\"b\",[null]]")),
            ("{a: 1, 'b c': {}}", Some("{\"a\":1,\"b c\":{}}")),
            ("undefined", None),
            ("Date.now()", None),
            ("1e999", None),
            ("", None),
            ("1 2", None),
            ("gpt-4o", None),
        ] {
            assert_eq!(parse_literal(text).as_ref().map(Json::text), json, "{text}");
        }
    }
}
