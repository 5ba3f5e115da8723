//! Filters and modifiers: what each link after the operation adds to a request. Pure.

use serde::Deserialize;
use tasker_core::Json;
use tasker_core::service::{Link, ServiceError};

use super::args::{Args, unknown_method};
use super::query::{Query, columns_of};
use crate::entries::Entries;

/// A filter or a modifier.
pub(super) fn step(query: &mut Query, link: &Link) -> Result<(), ServiceError> {
    let args = Args::of(link)?;
    let name = link.name.as_str();
    match name {
        "eq" | "neq" | "gt" | "gte" | "lt" | "lte" | "like" | "ilike" | "is" | "isDistinct"
        | "regexMatch" | "regexIMatch" | "rangeGt" | "rangeGte" | "rangeLt" | "rangeLte"
        | "rangeAdjacent" => {
            let operator = match name {
                "isDistinct" => "isdistinct",
                "regexMatch" => "match",
                "regexIMatch" => "imatch",
                "rangeGt" => "sr",
                "rangeGte" => "nxl",
                "rangeLt" => "sl",
                "rangeLte" => "nxr",
                "rangeAdjacent" => "adj",
                same => same,
            };
            let value = args.plain(args.value(1, "a value")?)?;
            query.filter(&args.column()?, format!("{operator}.{value}"))?;
        }
        "likeAllOf" | "likeAnyOf" | "ilikeAllOf" | "ilikeAnyOf" => {
            let operator = if name.starts_with('i') {
                "ilike"
            } else {
                "like"
            };
            let which = if name.ends_with("AllOf") {
                "all"
            } else {
                "any"
            };
            let patterns = args.plain(args.list(1)?)?;
            query.filter(
                &args.column()?,
                format!("{operator}({which}).{{{patterns}}}"),
            )?;
        }
        "in" | "notIn" => {
            let not = if name == "notIn" { "not." } else { "" };
            let values = listed(&args, args.list(1)?)?;
            query.filter(&args.column()?, format!("{not}in.({values})"))?;
        }
        "contains" | "containedBy" | "overlaps" => {
            let operator = match name {
                "contains" => "cs",
                "containedBy" => "cd",
                _ => "ov",
            };
            let value = args.value(1, "a range, a list or an object")?;
            let text = match value.text().as_bytes() {
                [b'[', ..] => format!("{{{}}}", args.plain(value)?),
                [b'{', ..] if name != "overlaps" => value.text().to_owned(),
                _ => args.plain(value)?,
            };
            query.filter(&args.column()?, format!("{operator}.{text}"))?;
        }
        "textSearch" => {
            let options: TextOptions = args.options(2)?;
            let kind = match options.r#type.as_deref() {
                None => "",
                Some("plain") => "pl",
                Some("phrase") => "ph",
                Some("websearch") => "w",
                Some(_) => return Err(args.wrong("the type is plain, phrase or websearch")),
            };
            let config = options
                .config
                .map_or_else(String::new, |name| format!("({name})"));
            let text = args.text(1, "what to search for")?;
            query.filter(&args.column()?, format!("{kind}fts{config}.{text}"))?;
        }
        "match" => {
            let entries = args.value(0, "an object")?.to::<Entries>();
            let entries =
                entries.map_err(|_| args.wrong("it wants one object of columns and values"))?;
            for (column, value) in entries.0 {
                let value = args.plain(&value)?;
                query.filter(&column, format!("eq.{value}"))?;
            }
        }
        "not" | "filter" => {
            let not = if name == "not" { "not." } else { "" };
            let operator = args.text(1, "an operator")?;
            let value = args.plain(args.value(2, "a value")?)?;
            query.filter(&args.column()?, format!("{not}{operator}.{value}"))?;
        }
        "or" => {
            let filters = args.text(0, "filters")?;
            let options: TableOptions = args.options(1)?;
            let table = options.table().filter(|table| !table.is_empty());
            query.filter(&under(table.as_deref(), "or"), format!("({filters})"))?;
        }
        "order" => {
            let options: OrderOptions = args.options(1)?;
            let table = options.table.table().filter(|table| !table.is_empty());
            let key = under(table.as_deref(), "order");
            let direction = if options.ascending.unwrap_or(true) {
                "asc"
            } else {
                "desc"
            };
            let nulls = match options.nulls_first {
                None => "",
                Some(true) => ".nullsfirst",
                Some(false) => ".nullslast",
            };
            let order = format!("{}.{direction}{nulls}", args.column()?);
            let order = match query.get(&key) {
                Some(before) if !before.is_empty() => format!("{before},{order}"),
                _ => order,
            };
            query.set(&key, order);
        }
        "limit" => {
            let options: TableOptions = args.options(1)?;
            let rows: i64 = args.number(0)?;
            query.set(
                &under(options.table().as_deref(), "limit"),
                rows.to_string(),
            );
        }
        "range" => {
            let options: TableOptions = args.options(2)?;
            let (from, to) = (args.number(0)?, args.number(1)?);
            let table = options.table();
            query.set(&under(table.as_deref(), "offset"), from.to_string());
            let rows = to.saturating_sub(from).saturating_add(1);
            query.set(&under(table.as_deref(), "limit"), rows.to_string());
        }
        "select" => {
            let columns: Option<String> = args.optional(0)?;
            query.set("select", columns_of(columns.as_deref()));
            query.prefer.push("return=representation".to_owned());
        }
        "single" => query.accept = Some("application/vnd.pgrst.object+json".to_owned()),
        "maybeSingle" => query.maybe_single = true,
        "csv" => query.accept = Some("text/csv".to_owned()),
        "geojson" => query.accept = Some("application/geo+json".to_owned()),
        "rollback" => query.prefer.push("tx=rollback".to_owned()),
        "maxAffected" => {
            let rows: i64 = args.number(0)?;
            query.prefer.push("handling=strict".to_owned());
            query.prefer.push(format!("max-affected={rows}"));
        }
        "throwOnError" => query.throws = true,
        "returns" | "overrideTypes" => {}
        other => {
            return Err(unknown_method(
                other,
                "it is no filter and no modifier that this service knows",
            ));
        }
    }
    Ok(())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TextOptions {
    r#type: Option<String>,
    config: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TableOptions {
    foreign_table: Option<String>,
    referenced_table: Option<String>,
}

impl TableOptions {
    fn table(&self) -> Option<String> {
        let table = self.referenced_table.as_ref();
        table.or(self.foreign_table.as_ref()).cloned()
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OrderOptions {
    ascending: Option<bool>,
    nulls_first: Option<bool>,
    #[serde(flatten)]
    table: TableOptions,
}

/// The values of `in.(…)`: each once, in quotes where a letter of the list's own grammar is in them.
fn listed(args: &Args<'_>, list: &Json) -> Result<String, ServiceError> {
    let items = list.elements().map_err(ServiceError::internal)?;
    let mut seen: Vec<(bool, String)> = Vec::new();
    for item in &items {
        let entry = (item.text().starts_with('"'), args.plain(item)?);
        if !seen.contains(&entry) {
            seen.push(entry);
        }
    }
    let written = seen.into_iter().map(|(is_text, value)| {
        if is_text && (value.contains([',', '(', ')']) || value.starts_with('"')) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{escaped}\"")
        } else {
            value
        }
    });
    Ok(written.collect::<Vec<_>>().join(","))
}

fn under(table: Option<&str>, name: &str) -> String {
    match table {
        Some(table) => format!("{table}.{name}"),
        None => name.to_owned(),
    }
}
