//! Shapes and schemas read back from JSON Schema text, in the order written.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use tasker_adaptor::Json;

use super::schema::{ErrorDoc, Schema};
use super::shape::{Kind, Member, Shape};

/// The members of a JSON object in the order written. A name that comes twice is there twice.
#[derive(Debug, Default)]
pub(super) struct Members(pub(super) Vec<(String, Json)>);

impl Members {
    /// The members of an object; none for any other value.
    pub(super) fn of(json: &Json) -> Self {
        json.to().unwrap_or_default()
    }

    /// The value of a name; the last one, as JavaScript has it.
    pub(super) fn find(&self, name: &str) -> Option<&Json> {
        self.0
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.find(name)?.to().ok()
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Shape {
    /// Reads a JSON Schema: type, enum, const, properties, required, items, additionalProperties, anyOf, oneOf, nullable, format.
    /// What else it says is left out, so a value that fits the schema fits the shape.
    pub fn from_schema(schema: &Json) -> Self {
        Self::read(schema, 0)
    }

    fn read(schema: &Json, depth: u32) -> Self {
        /// Schemas come from services in other processes too.
        const DEPTH: u32 = 64;
        if depth > DEPTH {
            return Self::default();
        }
        let members = Members::of(schema);
        let mut shape = Self {
            description: members.text("description").unwrap_or_default(),
            default: members.find("default").cloned(),
            nullable: members
                .find("nullable")
                .is_some_and(|flag| flag.text() == "true"),
            ..Self::default()
        };
        let mut types: Vec<String> = members
            .find("type")
            .map(|value| {
                value
                    .to::<Vec<_>>()
                    .or_else(|_| value.to().map(|one| vec![one]))
            })
            .and_then(Result::ok)
            .unwrap_or_default();
        if types.len() > 1 && types.iter().any(|one| one == "null") {
            types.retain(|one| one != "null");
            shape.nullable = true;
        }
        let literals: Option<Vec<Json>> = members
            .find("enum")
            .and_then(|values| values.to().ok())
            .or_else(|| members.find("const").map(|value| vec![value.clone()]));
        let choices: Option<Vec<Json>> = ["anyOf", "oneOf"]
            .iter()
            .find_map(|name| members.find(name)?.to().ok());
        shape.kind = if let Some(mut values) = literals {
            let all = values.len();
            values.retain(|value| value.text() != "null");
            shape.nullable |= values.len() < all;
            Kind::Enum(values)
        } else if let Some(choices) = choices {
            let mut shapes: Vec<_> = choices
                .iter()
                .map(|one| Self::read(one, depth + 1))
                .collect();
            let all = shapes.len();
            shapes.retain(|one| one.kind != Kind::Null);
            shape.nullable |= shapes.len() < all;
            Kind::Union(shapes)
        } else {
            match types.as_slice() {
                [one] => read_kind(one, &members, depth),
                [] if members.find("properties").is_some() => read_kind("object", &members, depth),
                [] => Kind::Any,
                several => Kind::Union(
                    several
                        .iter()
                        .map(|one| Self::new(read_kind(one, &members, depth)))
                        .collect(),
                ),
            }
        };
        shape
    }
}

fn read_kind(name: &str, members: &Members, depth: u32) -> Kind {
    match name {
        "null" => Kind::Null,
        "boolean" => Kind::Boolean,
        "integer" => Kind::Integer,
        "number" => Kind::Number,
        "string" if members.text("format").as_deref() == Some("date-time") => Kind::DateTime,
        "string" => Kind::String,
        "array" => Kind::Array(Box::new(
            members
                .find("items")
                .map(|items| Shape::read(items, depth + 1))
                .unwrap_or_default(),
        )),
        "object" => match (
            members.find("properties"),
            members.find("additionalProperties"),
        ) {
            (None, Some(values)) if values.text().starts_with('{') => {
                Kind::Map(Box::new(Shape::read(values, depth + 1)))
            }
            (properties, _) => {
                let required: Vec<String> = members
                    .find("required")
                    .and_then(|names| names.to().ok())
                    .unwrap_or_default();
                let properties = properties.map(Members::of).unwrap_or_default();
                Kind::Object(
                    properties
                        .0
                        .into_iter()
                        .map(|(name, schema)| Member {
                            optional: !required.contains(&name),
                            shape: Shape::read(&schema, depth + 1),
                            name,
                        })
                        .collect(),
                )
            }
        },
        _ => Kind::Any,
    }
}

impl Schema {
    /// Reads what [`Schema::json`] wrote: the `schema` column of a stored task.
    pub fn from_json(stored: &Json) -> Self {
        let members = Members::of(stored);
        let parameters = members
            .find("parameters")
            .map(Shape::from_schema)
            .unwrap_or_default();
        let input = match parameters.kind {
            Kind::Object(mut members) if !members.is_empty() => Some(members.swap_remove(0)),
            _ => None,
        };
        Self {
            name: members.text("name").unwrap_or_default(),
            description: members.text("description").unwrap_or_default(),
            input,
            returns: members
                .find("returns")
                .map(Shape::from_schema)
                .unwrap_or_default(),
            errors: members
                .find("errors")
                .and_then(|errors| errors.to::<Vec<ErrorDoc>>().ok())
                .unwrap_or_default(),
        }
    }
}
