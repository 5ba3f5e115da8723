//! The shape of a value: what JSDoc types, destructured parameters and JSON Schemas are read into.

use serde::ser::{Serialize, SerializeMap, Serializer};
use tasker_adaptor::Json;

/// The shape of a JSON value. Members of objects keep their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// What it may be.
    pub kind: Kind,
    /// `null` is fine too.
    pub nullable: bool,
    /// For people.
    pub description: String,
    /// Used by the task when the value is not given.
    pub default: Option<Json>,
}

/// What a value may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Anything.
    #[default]
    Any,
    /// `null` only.
    Null,
    /// `true`, `false`.
    Boolean,
    /// A number without fraction.
    Integer,
    /// A number.
    Number,
    /// Text.
    String,
    /// Text that is a date and time.
    DateTime,
    /// One of these.
    Enum(Vec<Json>),
    /// A list of such values.
    Array(Box<Shape>),
    /// An object with these members; others are allowed.
    Object(Vec<Member>),
    /// An object whose members are all such values.
    Map(Box<Shape>),
    /// One of these.
    Union(Vec<Shape>),
}

/// A member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name.
    pub name: String,
    /// It may be left out.
    pub optional: bool,
    /// Its value.
    pub shape: Shape,
}

impl Shape {
    /// A shape of this kind.
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            nullable: false,
            description: String::new(),
            default: None,
        }
    }

    /// The same, or `null`.
    #[must_use]
    pub fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// The member of this name; makes an object of a shape that is none yet.
    pub(super) fn member_mut(&mut self, name: &str) -> &mut Member {
        let members = self.members_mut();
        let known = members.iter().position(|member| member.name == name);
        let index = known.unwrap_or_else(|| {
            members.push(Member {
                name: name.to_owned(),
                optional: false,
                shape: Self::default(),
            });
            members.len() - 1
        });
        &mut members[index]
    }

    fn members_mut(&mut self) -> &mut Vec<Member> {
        if !matches!(self.kind, Kind::Object(_)) {
            self.kind = Kind::Object(Vec::new());
        }
        match &mut self.kind {
            Kind::Object(members) => members,
            _ => unreachable!("made an object above"),
        }
    }

    /// The shape of the items; makes a list of a shape that is none yet.
    pub(super) fn items_mut(&mut self) -> &mut Self {
        if !matches!(self.kind, Kind::Array(_)) {
            self.kind = Kind::Array(Box::default());
        }
        match &mut self.kind {
            Kind::Array(items) => items,
            _ => unreachable!("made a list above"),
        }
    }

    /// The members, when it is an object that names them.
    pub fn members(&self) -> &[Member] {
        match &self.kind {
            Kind::Object(members) => members,
            _ => &[],
        }
    }

    /// As JSON Schema.
    pub(super) const fn written(&self, dialect: Dialect) -> Written<'_> {
        Written {
            shape: self,
            dialect,
        }
    }
}

/// Which JSON Schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Draft 2020-12: `null` is a type.
    JsonSchema,
    /// OpenAPI 3.0: `nullable`.
    OpenApi30,
}

/// A shape being written.
pub(super) struct Written<'s> {
    shape: &'s Shape,
    dialect: Dialect,
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { shape, dialect } = *self;
        let mut map = serializer.serialize_map(None)?;
        let type_name = match &shape.kind {
            Kind::Any | Kind::Union(_) => None,
            Kind::Null => Some("null"),
            Kind::Boolean => Some("boolean"),
            Kind::Integer => Some("integer"),
            Kind::Number => Some("number"),
            Kind::String | Kind::DateTime => Some("string"),
            Kind::Enum(values) => enum_type(values),
            Kind::Array(_) => Some("array"),
            Kind::Object(_) | Kind::Map(_) => Some("object"),
        };
        match (type_name, dialect) {
            (Some("null"), Dialect::OpenApi30) => map.serialize_entry("nullable", &true)?,
            (Some(name), Dialect::JsonSchema) if shape.nullable && name != "null" => {
                map.serialize_entry("type", &[name, "null"])?;
            }
            (Some(name), _) => map.serialize_entry("type", name)?,
            (None, _) => {}
        }
        if shape.nullable && dialect == Dialect::OpenApi30 {
            map.serialize_entry("nullable", &true)?;
        }
        if shape.kind == Kind::DateTime {
            map.serialize_entry("format", "date-time")?;
        }
        if !shape.description.is_empty() {
            map.serialize_entry("description", &shape.description)?;
        }
        match &shape.kind {
            Kind::Enum(values) => {
                let null = (shape.nullable && dialect == Dialect::JsonSchema).then(Json::null);
                let values: Vec<_> = values.iter().cloned().chain(null).collect();
                map.serialize_entry("enum", &values)?;
            }
            Kind::Array(items) if **items != Shape::default() => {
                map.serialize_entry("items", &items.written(dialect))?;
            }
            // OpenAPI 3.0 wants `items` with every array.
            Kind::Array(items) if dialect == Dialect::OpenApi30 => {
                map.serialize_entry("items", &items.written(dialect))?;
            }
            Kind::Map(values) => {
                map.serialize_entry("additionalProperties", &values.written(dialect))?;
            }
            Kind::Object(members) if !members.is_empty() => {
                map.serialize_entry("properties", &Properties { members, dialect })?;
                let required: Vec<_> = members
                    .iter()
                    .filter(|member| !member.optional)
                    .map(|member| member.name.as_str())
                    .collect();
                if !required.is_empty() {
                    map.serialize_entry("required", &required)?;
                }
            }
            Kind::Union(shapes) => {
                let null = Shape::new(Kind::Null);
                let null = (shape.nullable && dialect == Dialect::JsonSchema).then_some(&null);
                let shapes: Vec<_> = shapes
                    .iter()
                    .chain(null)
                    .map(|shape| shape.written(dialect))
                    .collect();
                map.serialize_entry("anyOf", &shapes)?;
            }
            _ => {}
        }
        if let Some(default) = &shape.default {
            map.serialize_entry("default", default)?;
        }
        map.end()
    }
}

/// The one type of all values of an enumeration.
fn enum_type(values: &[Json]) -> Option<&'static str> {
    let type_of = |value: &Json| match value.text().as_bytes().first() {
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        _ => "number",
    };
    let first = type_of(values.first()?);
    values
        .iter()
        .all(|value| type_of(value) == first)
        .then_some(first)
}

struct Properties<'s> {
    members: &'s [Member],
    dialect: Dialect,
}

impl Serialize for Properties<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.members
                .iter()
                .map(|member| (&member.name, member.shape.written(self.dialect))),
        )
    }
}
