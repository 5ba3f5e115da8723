//! What a task takes, gives and throws: read from its JSDoc, written as JSON Schema, OpenAPI or an OpenAI function.

use std::collections::BTreeSet;

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use tasker_adaptor::Json;

use super::doc_type::doc_type;
use super::entry::{Entry, doc_of};
use super::facts::{Exported, Facts, FirstParam, TopFunction};
use super::jsdoc::{Doc, Parts, is_path};
use super::literal::parse_literal;
use super::shape::{Dialect, Kind, Member, Shape, Written};

/// What a task takes, gives and throws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Name of the task.
    pub name: String,
    /// For people.
    pub description: String,
    /// The input: name of the parameter and shape; `None` for a function without parameters.
    pub input: Option<Member>,
    /// What it gives back.
    pub returns: Shape,
    /// What it throws.
    pub errors: Vec<ErrorDoc>,
}

/// An error that a task documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDoc {
    /// Name of the error.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it is thrown.
    pub description: String,
}

impl Schema {
    /// The task's name by its comment.
    pub(super) fn task_tag(facts: &Facts) -> Option<String> {
        facts.docs.iter().find_map(|block| {
            let doc = Doc::read(&block.text);
            let text = doc.tags(&["task"]).next()?.text();
            let name = text.split_whitespace().next()?.to_owned();
            Some(name)
        })
    }

    /// Reads the comment that describes the task: the one with `@task`, else the one before its function, else the first.
    pub(super) fn build(
        name: &str,
        facts: &Facts,
        entry: &Entry,
        warnings: &mut Vec<String>,
    ) -> Self {
        let doc = find_doc(facts, entry).map(Doc::read).unwrap_or_default();
        let function = entry.function();
        let mut builder = Builder {
            warnings,
            described: BTreeSet::new(),
        };
        Self {
            name: name.to_owned(),
            description: description(&doc),
            input: builder.input(&doc, function),
            returns: builder.returns(&doc),
            errors: errors(&doc),
        }
    }

    /// Format `json`: name, description, parameters as JSON Schema, returns, errors. This is what is stored.
    pub fn json(&self) -> Json {
        to_json(&Document {
            schema: self,
            dialect: Dialect::JsonSchema,
            with_errors: true,
        })
    }

    /// Format `openai`: a function for OpenAI's tool calls, with what it returns.
    pub fn openai(&self) -> Json {
        to_json(&Document {
            schema: self,
            dialect: Dialect::JsonSchema,
            with_errors: false,
        })
    }

    /// Format `openapi`: an OpenAPI 3.0.0 document with the one path `/execute`.
    pub fn openapi(&self) -> Json {
        super::openapi::document(self)
    }

    /// JSON Schema of the input value itself; `{}` when nothing is known of it.
    pub fn input_schema(&self) -> Json {
        match &self.input {
            Some(input) => to_json(&input.shape.written(Dialect::JsonSchema)),
            None => to_json(&Shape::default().written(Dialect::JsonSchema)),
        }
    }

    pub(super) fn parameters(&self, dialect: Dialect) -> impl Serialize + '_ {
        Parameters {
            input: self.input.as_ref(),
            dialect,
        }
    }
}

fn to_json<T: Serialize>(value: &T) -> Json {
    Json::from(value).expect("maps with text keys are JSON")
}

/// The text of the comment that describes the task.
fn find_doc<'f>(facts: &'f Facts, entry: &'f Entry) -> Option<&'f str> {
    let tagged = facts
        .docs
        .iter()
        .find(|block| Doc::read(&block.text).tags(&["task"]).next().is_some())
        .map(|block| block.text.as_str());
    tagged
        .or_else(|| {
            entry
                .function()
                .and_then(|function| doc_of(facts, function))
        })
        .or_else(|| {
            // `/** … */ module.exports = name`, with the function elsewhere
            let export = facts.exports.iter().rev().find(|export| {
                matches!(export.what, Exported::Function(_) | Exported::Local(_))
                    || export.name == "default"
            })?;
            facts
                .docs
                .iter()
                .rev()
                .find(|block| block.attached_to == export.start)
                .map(|block| block.text.as_str())
        })
        .or_else(|| facts.docs.first().map(|block| block.text.as_str()))
}

fn description(doc: &Doc) -> String {
    let tagged = doc
        .tags(&["description", "desc", "summary"])
        .map(super::jsdoc::Tag::text)
        .find(|text| !text.is_empty());
    match (doc.text.is_empty(), tagged) {
        (_, Some(tagged)) => tagged,
        (false, None) => doc.text.clone(),
        (true, None) => String::new(),
    }
}

fn errors(doc: &Doc) -> Vec<ErrorDoc> {
    doc.tags(&["throws", "throw", "exception"])
        .map(|tag| {
            // A `@throws` has no name: what follows the type is prose.
            let parts = tag.return_parts();
            ErrorDoc {
                kind: parts.type_text.unwrap_or_else(|| "Error".to_owned()),
                description: parts.description,
            }
        })
        .collect()
}

struct Builder<'w> {
    warnings: &'w mut Vec<String>,
    /// Dotted names that have a tag of their own.
    described: BTreeSet<String>,
}

impl Builder<'_> {
    fn input(&mut self, doc: &Doc, function: Option<&TopFunction>) -> Option<Member> {
        let first = function.map(|function| &function.first);
        let mut root = Shape::new(Kind::Object(Vec::new()));
        for tag in doc.tags(&["param", "arg", "argument"]) {
            self.place(&mut root, tag.parts());
        }
        let mut params = match root.kind {
            Kind::Object(members) => members,
            _ => Vec::new(),
        };
        // What is not the input: the context, and `tools` of `runTask(input, tools)`.
        params.retain(|param| {
            matches!(first, Some(FirstParam::Named(name)) if *name == param.name)
                || !matches!(param.name.as_str(), "context" | "ctx" | "tools")
        });
        let mut input = pick_input(params, first)?;
        if let Some(FirstParam::Pattern(fields)) = first {
            // What the code says of members that the comment leaves out, and of their defaults.
            for field in fields {
                let known = input
                    .shape
                    .members()
                    .iter()
                    .any(|member| member.name == field.name);
                if !known && !matches!(input.shape.kind, Kind::Object(_) | Kind::Any) {
                    continue;
                }
                let member = input.shape.member_mut(&field.name);
                member.optional |= field.optional;
                if member.shape.default.is_none() {
                    member.shape.default.clone_from(&field.default);
                }
            }
        }
        Some(input)
    }

    fn returns(&mut self, doc: &Doc) -> Shape {
        self.described.clear();
        let mut shape = Shape::default();
        for tag in doc.tags(&["returns", "return"]) {
            let parts = tag.return_parts();
            if parts.name.is_empty() {
                let read = self.read_type(parts.type_text.as_deref());
                // A later plain @returns says more of the same value.
                if shape == Shape::default() || shape.description.is_empty() {
                    let members = std::mem::take(&mut shape);
                    shape = read.0;
                    shape.description = parts.description;
                    for member in members.members() {
                        shape.member_mut(&member.name).clone_from(member);
                    }
                }
            } else {
                self.place(&mut shape, parts);
            }
        }
        shape
    }

    /// Puts a dotted name where it belongs: `input.a.b`, `messages.0.role`, `items[].id`.
    fn place(&mut self, root: &mut Shape, parts: Parts) {
        /// Deeper names are a mistake, and the shape is written by recursion.
        const DEPTH: usize = 64;
        let path = parts.name.replace("[]", ".0");
        if !is_path(&path) || path.split('.').count() > DEPTH {
            if !path.is_empty() {
                self.warnings.push(format!(
                    "the name {path:?} in the comment is not one that can be read; it is left out"
                ));
            }
            return;
        }
        let (mut shape, optional) = self.read_type(parts.type_text.as_deref());
        shape.description = parts.description;
        shape.default = parts.default.as_deref().and_then(|text| {
            let default = parse_literal(text);
            if default.is_none() && !matches!(text, "undefined" | "") {
                self.warnings.push(format!(
                    "the default of {path} is not a literal ({text}) and is left out of the schema"
                ));
            }
            default
        });
        let names: Vec<_> = path.split('.').collect();
        let Some((last, ancestors)) = names.split_last() else {
            return;
        };
        let leaf_optional = parts.optional || optional;
        let mut at = root;
        for (depth, name) in ancestors.iter().enumerate() {
            let described = self.described.contains(&names[..=depth].join("."));
            at = step(at, name, leaf_optional, described);
        }
        self.described.insert(path.clone());
        if is_index(last) && !matches!(at.kind, Kind::Object(_)) {
            at.items_mut().merge(shape);
            return;
        }
        let member = into_object(at).member_mut(last);
        member.optional = leaf_optional;
        member.shape.merge(shape);
    }

    fn read_type(&mut self, text: Option<&str>) -> (Shape, bool) {
        let read = text.map(doc_type).unwrap_or_default();
        self.warnings.extend(read.warnings);
        (read.shape, read.optional)
    }
}

/// One step down a dotted name. A list is entered by an index, or silently: `users.name` of an array of users.
///
/// A member without a tag of its own may be left out when all that is said of it may.
fn step<'s>(
    shape: &'s mut Shape,
    name: &str,
    leaf_optional: bool,
    described: bool,
) -> &'s mut Shape {
    if is_index(name) && !matches!(shape.kind, Kind::Object(ref members) if !members.is_empty()) {
        return shape.items_mut();
    }
    let object = into_object(shape);
    let is_new = object.members().iter().all(|member| member.name != name);
    let member = object.member_mut(name);
    if !described {
        member.optional = leaf_optional && (is_new || member.optional);
    }
    &mut member.shape
}

fn into_object(shape: &mut Shape) -> &mut Shape {
    if matches!(shape.kind, Kind::Array(_)) {
        return shape.items_mut();
    }
    shape
}

fn is_index(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}

impl Shape {
    /// Takes what a tag says of a value whose members may have been described before.
    fn merge(&mut self, said: Self) {
        let before = std::mem::replace(self, said);
        match (&mut self.kind, before.kind) {
            (Kind::Object(members), Kind::Object(known)) => {
                for member in known {
                    if members.iter().all(|new| new.name != member.name) {
                        members.push(member);
                    }
                }
            }
            (Kind::Any, known) => self.kind = known,
            _ => {}
        }
    }
}

/// Which documented parameter is the input.
fn pick_input(mut params: Vec<Member>, first: Option<&FirstParam>) -> Option<Member> {
    let as_members = |members: Vec<Member>| Member {
        name: "input".to_owned(),
        optional: members.iter().all(|member| member.optional),
        shape: Shape::new(Kind::Object(members)),
    };
    let structured = |param: &Member| matches!(param.shape.kind, Kind::Object(_) | Kind::Map(_));
    match first {
        Some(FirstParam::None) if params.is_empty() => None,
        None | Some(FirstParam::None) if params.is_empty() => Some(Member {
            name: "input".to_owned(),
            optional: true,
            shape: Shape::default(),
        }),
        Some(FirstParam::Named(name)) => {
            if let Some(index) = params.iter().position(|param| param.name == *name) {
                return Some(params.swap_remove(index));
            }
            match params.len() {
                0 => Some(Member {
                    name: name.clone(),
                    optional: true,
                    shape: Shape::default(),
                }),
                1 => Some(params.remove(0)),
                _ if structured(&params[0]) => Some(params.swap_remove(0)),
                _ => Some(as_members(params)),
            }
        }
        Some(FirstParam::Pattern(fields)) => {
            let is_field = |param: &Member| fields.iter().any(|field| field.name == param.name);
            let whole = params
                .iter()
                .position(|param| structured(param) && !is_field(param));
            let mut input = match whole {
                Some(index) => params.swap_remove(index),
                None => as_members(params),
            };
            "input".clone_into(&mut input.name);
            if whole.is_none() {
                input.optional &= fields.iter().all(|field| field.optional);
            }
            Some(input)
        }
        None | Some(FirstParam::None) => {
            let index = params
                .iter()
                .position(|param| param.name == "input")
                .or_else(|| (params.len() == 1 && structured(&params[0])).then_some(0));
            match index {
                Some(index) => Some(params.swap_remove(index)),
                None => Some(as_members(params)),
            }
        }
    }
}

/// The formats `json` and `openai`.
struct Document<'s> {
    schema: &'s Schema,
    dialect: Dialect,
    with_errors: bool,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let schema = self.schema;
        let mut map = serializer.serialize_map(None)?;
        if self.with_errors {
            map.serialize_entry("name", &schema.name)?;
        } else {
            map.serialize_entry("name", &function_name(&schema.name))?;
        }
        map.serialize_entry("description", &schema.description)?;
        map.serialize_entry("parameters", &schema.parameters(self.dialect))?;
        map.serialize_entry("returns", &schema.returns.written(self.dialect))?;
        if self.with_errors {
            map.serialize_entry("errors", &schema.errors)?;
        }
        map.end()
    }
}

/// A name that OpenAI takes: letters, digits, `_` and `-`, at most 64.
fn function_name(name: &str) -> String {
    name.chars()
        .take(64)
        .map(|c| if matches!(c, '.' | '/') { '_' } else { c })
        .collect()
}

/// An object with the input as its one property.
struct Parameters<'s> {
    input: Option<&'s Member>,
    dialect: Dialect,
}

impl Serialize for Parameters<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", "object")?;
        let mut properties = Vec::<(&str, Written<'_>)>::new();
        let mut required = Vec::new();
        if let Some(input) = self.input {
            properties.push((&input.name, input.shape.written(self.dialect)));
            if !input.optional {
                required.push(input.name.as_str());
            }
        }
        map.serialize_entry("properties", &Pairs(&properties))?;
        if !required.is_empty() {
            map.serialize_entry("required", &required)?;
        }
        map.end()
    }
}

struct Pairs<'p, V>(&'p [(&'p str, V)]);

impl<V: Serialize> Serialize for Pairs<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}
