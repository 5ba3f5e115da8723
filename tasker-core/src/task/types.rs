//! Type declarations (`.d.ts`) for the editors of people who write tasks.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::schema::Schema;
use super::shape::{Kind, Shape};
use crate::service::{MethodDescription, ServiceDescription, ServiceStyle};

/// What every task has, whatever services there are.
const FIXED: &str = include_str!("types_fixed.d.ts");

/// The text of a `.d.ts` file: `context`, each service with its methods, and `tasks.execute` for each published task.
///
/// Save it beside the tasks; an editor then completes and checks them:
/// `/** @param {{ tools: Tools }} context */`, or `tools.` as a global.
pub fn type_declarations(services: &[ServiceDescription], tasks: &[Schema]) -> String {
    let mut out = FIXED.to_owned();
    out.push_str("\n/** What a task may call. */\ninterface Tools extends CommonTools {\n");
    for service in services {
        doc(&mut out, 1, &service.description);
        let _ = writeln!(out, "  {}: {};", key(&service.name), service_type(service));
    }
    let execute = "  /** Other tasks. */\n  tasks: {\n";
    out.push_str(execute);
    for task in tasks {
        doc(&mut out, 2, &task.description);
        let input = match &task.input {
            Some(input) => format!(
                ", {}{}: {}",
                parameter(&input.name),
                if input.optional { "?" } else { "" },
                type_text(&input.shape, 2)
            ),
            None => String::new(),
        };
        let _ = writeln!(
            out,
            "    execute(name: {}{input}): Promise<{}>;",
            quoted(&task.name),
            type_text(&task.returns, 2)
        );
    }
    out.push_str("    execute(name: string, input?: any): Promise<any>;\n  };\n}\n");
    out
}

fn service_type(service: &ServiceDescription) -> String {
    let mut root = Node::default();
    for method in &service.methods {
        let mut node = &mut root;
        for part in method.name.split('.') {
            node = node.children.entry(part).or_default();
        }
        node.method = Some(method);
    }
    let open = service.open || service.style == ServiceStyle::Fluent;
    match (root.children.is_empty(), open) {
        (true, true) => "OpenService".to_owned(),
        (false, true) => format!("OpenService & {}", root.members(1)),
        (_, false) => root.members(1),
    }
}

/// Methods by the parts of their dotted names.
#[derive(Default)]
struct Node<'s> {
    method: Option<&'s MethodDescription>,
    children: BTreeMap<&'s str, Node<'s>>,
}

impl Node<'_> {
    fn members(&self, depth: usize) -> String {
        let mut out = "{\n".to_owned();
        for (name, node) in &self.children {
            let indent = "  ".repeat(depth + 1);
            if let Some(method) = node.method {
                doc(&mut out, depth + 1, &method.description);
                let _ = writeln!(
                    out,
                    "{indent}{}{};",
                    key(name),
                    signature(method, depth + 1)
                );
            }
            if !node.children.is_empty() {
                let _ = writeln!(out, "{indent}{}: {};", key(name), node.members(depth + 1));
            }
        }
        let _ = write!(out, "{}}}", "  ".repeat(depth));
        out
    }
}

/// `(args): Promise<result>`.
fn signature(method: &MethodDescription, depth: usize) -> String {
    let args: Vec<Shape> = method.args.iter().map(Shape::from_schema).collect();
    // Only arguments at the end may be left out.
    let required = args
        .iter()
        .rposition(|arg| arg.default.is_none() && !arg.nullable)
        .map_or(0, |last| last + 1);
    let written: Vec<_> = args
        .iter()
        .enumerate()
        .map(|(index, arg)| {
            let mark = if index < required { "" } else { "?" };
            let number = if args.len() == 1 {
                String::new()
            } else {
                (index + 1).to_string()
            };
            format!("arg{number}{mark}: {}", type_text(arg, depth))
        })
        .collect();
    let args = if method.args.is_empty() {
        "...args: any[]".to_owned()
    } else {
        written.join(", ")
    };
    let result = method.result.as_ref().map_or_else(
        || "any".to_owned(),
        |schema| type_text(&Shape::from_schema(schema), depth),
    );
    format!("({args}): Promise<{result}>")
}

/// A shape as a TypeScript type.
fn type_text(shape: &Shape, depth: usize) -> String {
    let text = match &shape.kind {
        Kind::Any => return "any".to_owned(),
        Kind::Null => return "null".to_owned(),
        Kind::Boolean => "boolean".to_owned(),
        Kind::Integer | Kind::Number => "number".to_owned(),
        Kind::String | Kind::DateTime => "string".to_owned(),
        Kind::Enum(values) if values.is_empty() => "never".to_owned(),
        Kind::Enum(values) => {
            let values: Vec<_> = values.iter().map(tasker_adaptor::Json::text).collect();
            values.join(" | ")
        }
        Kind::Array(items) => format!("Array<{}>", type_text(items, depth)),
        Kind::Map(values) => format!("Record<string, {}>", type_text(values, depth)),
        Kind::Object(members) if members.is_empty() => "Record<string, any>".to_owned(),
        Kind::Object(members) => {
            let mut out = "{\n".to_owned();
            for member in members {
                doc(&mut out, depth + 1, &member.shape.description);
                let _ = writeln!(
                    out,
                    "{}{}{}: {};",
                    "  ".repeat(depth + 1),
                    key(&member.name),
                    if member.optional { "?" } else { "" },
                    type_text(&member.shape, depth + 1)
                );
            }
            let _ = write!(out, "{}}}", "  ".repeat(depth));
            out
        }
        Kind::Union(shapes) if shapes.is_empty() => "any".to_owned(),
        Kind::Union(shapes) => {
            let shapes: Vec<_> = shapes.iter().map(|one| type_text(one, depth)).collect();
            shapes.join(" | ")
        }
    };
    if shape.nullable {
        format!("{text} | null")
    } else {
        text
    }
}

/// A comment, if there is anything to say.
fn doc(out: &mut String, depth: usize, text: &str) {
    if text.is_empty() {
        return;
    }
    let indent = "  ".repeat(depth);
    let text = text.replace("*/", "*\u{200b}/");
    if text.lines().count() == 1 {
        let _ = writeln!(out, "{indent}/** {text} */");
        return;
    }
    let _ = writeln!(out, "{indent}/**");
    for line in text.lines() {
        let _ = writeln!(out, "{}", format!("{indent} * {line}").trim_end());
    }
    let _ = writeln!(out, "{indent} */");
}

fn key(name: &str) -> String {
    if is_identifier(name) {
        name.to_owned()
    } else {
        quoted(name)
    }
}

fn parameter(name: &str) -> &str {
    if is_identifier(name) { name } else { "input" }
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '_' | '$'))
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'))
}

fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}
