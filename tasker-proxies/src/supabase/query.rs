//! A chain as users of supabase-js write it, turned into one PostgREST request. Pure.
//!
//! The request is the one that `@supabase/postgrest-js` sends for the same chain, with these differences: an object
//! where a filter wants a value is refused (the client sends `[object Object]`), and a quote within a listed value
//! is escaped (the client sends a list that means something else).

use serde::Deserialize;
use tasker_core::Json;
use tasker_core::service::{Link, ServiceError};

use super::allowed::{Allowed, check_embedded, check_name, permit, permit_operation};
use super::args::{Args, format_error, is_array, unknown_method};
use super::filters::step;
use crate::entries::Entries;

/// A PostgREST request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) verb: Verb,
    /// Path below the REST root: `[table]` or `["rpc", function]`.
    pub(super) path: Vec<String>,
    /// Query parameters, in order.
    pub(super) params: Vec<(String, String)>,
    /// Parts of `Prefer`, in order.
    pub(super) prefer: Vec<String>,
    /// `Accept`, when it is not any.
    pub(super) accept: Option<String>,
    pub(super) schema: String,
    pub(super) body: Option<Json>,
    pub(super) maybe_single: bool,
    /// An error of the database is thrown, not answered.
    pub(super) throws: bool,
}

/// HTTP method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Head,
    Post,
    Patch,
    Delete,
}

/// Parameters that are no columns: as the name of one they would say something else than a filter.
const RESERVED: [&str; 6] = [
    "select",
    "columns",
    "on_conflict",
    "order",
    "limit",
    "offset",
];

/// The request of a chain.
pub(super) fn build(
    chain: &[Link],
    schema: &str,
    allowed: &Allowed,
) -> Result<Query, ServiceError> {
    let mut links = chain.iter().peekable();
    let mut schema = schema.to_owned();
    while let Some(link) = links.next_if(|link| link.name == "schema") {
        let args = Args::of(link)?;
        let name: String = args.text(0, "the name of a schema")?;
        if name != schema {
            permit("schema", &name, allowed.schemas.as_deref())?;
        }
        schema = name;
    }
    let start = links.next().ok_or_else(|| format_error("it is empty"))?;
    let mut query = match start.name.as_str() {
        "from" => {
            let table = Args::of(start)?.text(0, "the name of a table")?;
            check_name("table", &table)?;
            permit("table", &table, allowed.tables.as_deref())?;
            let operation = links.next().ok_or_else(|| {
                format_error("after from(…) it needs select, insert, upsert, update or delete")
            })?;
            permit_operation(&operation.name, allowed)?;
            operate(operation, table)?
        }
        "rpc" => {
            permit_operation("rpc", allowed)?;
            let args = Args::of(start)?;
            let function = args.text(0, "the name of a function")?;
            check_name("function", &function)?;
            permit("function", &function, allowed.functions.as_deref())?;
            call_function(&args, function)?
        }
        _ => return Err(format_error("it begins with from(table) or rpc(function)")),
    };
    query.schema = schema;
    for link in links {
        step(&mut query, link)?;
    }
    check_embedded(&query, allowed)?;
    Ok(query)
}

fn operate(link: &Link, table: String) -> Result<Query, ServiceError> {
    let args = Args::of(link)?;
    let mut query = Query::new(Verb::Get, vec![table]);
    match link.name.as_str() {
        "select" => {
            let options: SelectOptions = args.options(1)?;
            if options.head {
                query.verb = Verb::Head;
            }
            let columns: Option<String> = args.optional(0)?;
            query.set("select", columns_of(columns.as_deref()));
            query.count(options.count)?;
        }
        "insert" | "upsert" => {
            query.verb = Verb::Post;
            let options: WriteOptions = args.options(1)?;
            if link.name == "upsert" {
                let resolution = if options.ignore_duplicates {
                    "ignore"
                } else {
                    "merge"
                };
                query
                    .prefer
                    .push(format!("resolution={resolution}-duplicates"));
                if let Some(columns) = options.on_conflict {
                    query.set("on_conflict", columns);
                }
            }
            query.count(options.count)?;
            if options.default_to_null == Some(false) {
                query.prefer.push("missing=default".to_owned());
            }
            let values = args.value(0, "the row or rows to write")?;
            if let Some(columns) = columns_of_rows(values)? {
                query.set("columns", columns);
            }
            query.body = Some(values.clone());
        }
        "update" => {
            query.verb = Verb::Patch;
            let options: WriteOptions = args.options(1)?;
            query.count(options.count)?;
            query.body = Some(args.value(0, "the values to set")?.clone());
        }
        "delete" => {
            query.verb = Verb::Delete;
            let options: WriteOptions = args.options(0)?;
            query.count(options.count)?;
        }
        other => {
            return Err(unknown_method(
                other,
                "after from(…) comes select, insert, upsert, update or delete",
            ));
        }
    }
    Ok(query)
}

fn call_function(args: &Args<'_>, function: String) -> Result<Query, ServiceError> {
    let options: RpcOptions = args.options(2)?;
    let empty = Json::parse("{}").map_err(ServiceError::internal)?;
    let arguments = args.get(1).cloned().unwrap_or(empty);
    let mut query = Query::new(Verb::Post, vec!["rpc".to_owned(), function]);
    let members = || {
        let entries = arguments.to::<Entries>();
        entries.map_err(|_| args.wrong("the arguments of the function are one object"))
    };
    let in_body = options.head && members()?.0.iter().any(|(_, value)| holds_object(value));
    if in_body || !(options.head || options.get) {
        query.body = Some(arguments.clone());
    } else {
        query.verb = if options.head { Verb::Head } else { Verb::Get };
        for (name, value) in members()?.0 {
            let text = args.plain(&value)?;
            let text = if is_array(&value) {
                format!("{{{text}}}")
            } else {
                text
            };
            query.filter(&name, text)?;
        }
    }
    query.count(options.count)?;
    if in_body {
        // One header value, as the client writes it: what follows is joined to it with a blank.
        let before = query.prefer.pop().into_iter();
        let parts: Vec<String> = before.chain(["return=minimal".to_owned()]).collect();
        query.prefer.push(parts.join(","));
    }
    Ok(query)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SelectOptions {
    head: bool,
    count: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WriteOptions {
    count: Option<String>,
    on_conflict: Option<String>,
    ignore_duplicates: bool,
    default_to_null: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RpcOptions {
    head: bool,
    get: bool,
    count: Option<String>,
}

impl Query {
    fn new(verb: Verb, path: Vec<String>) -> Self {
        Self {
            verb,
            path,
            params: Vec::new(),
            prefer: Vec::new(),
            accept: None,
            schema: String::new(),
            body: None,
            maybe_single: false,
            throws: false,
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut params = self.params.iter();
        params
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// As `URLSearchParams.set`.
    pub(super) fn set(&mut self, name: &str, value: String) {
        match self.params.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.params.push((name.to_owned(), value)),
        }
    }

    /// As `URLSearchParams.append`.
    pub(super) fn filter(&mut self, column: &str, value: String) -> Result<(), ServiceError> {
        if column.is_empty() || RESERVED.contains(&column) {
            return Err(ServiceError::validation(format!(
                "supabase: {column:?} cannot be the name of a column or argument: PostgREST reads something else in it"
            )));
        }
        self.params.push((column.to_owned(), value));
        Ok(())
    }

    fn count(&mut self, count: Option<String>) -> Result<(), ServiceError> {
        match count.as_deref() {
            None => Ok(()),
            Some("exact" | "planned" | "estimated") => {
                self.prefer
                    .push(format!("count={}", count.unwrap_or_default()));
                Ok(())
            }
            Some(_) => Err(ServiceError::validation(
                "supabase: count is exact, planned or estimated",
            )),
        }
    }
}

/// `columns` for rows in a list: every name once, quoted.
fn columns_of_rows(values: &Json) -> Result<Option<String>, ServiceError> {
    if !is_array(values) {
        return Ok(None);
    }
    let rows: Vec<Entries> = values.to().map_err(|_| {
        ServiceError::validation("supabase: the rows to write are objects, one or a list of them")
    })?;
    let mut columns: Vec<String> = Vec::new();
    for (name, _) in rows.into_iter().flat_map(|row| row.0) {
        let quoted = format!("\"{name}\"");
        if !columns.contains(&quoted) {
            columns.push(quoted);
        }
    }
    Ok((!columns.is_empty()).then(|| columns.join(",")))
}

/// Columns without the white space outside of quotes.
pub(super) fn columns_of(columns: Option<&str>) -> String {
    let mut quoted = false;
    let kept = columns.unwrap_or("*").chars().filter(|letter| {
        if *letter == '"' {
            quoted = !quoted;
        }
        quoted || !letter.is_whitespace()
    });
    kept.collect()
}

/// Whether a value is an object, or a list with one somewhere in it.
fn holds_object(value: &Json) -> bool {
    match value.text().as_bytes() {
        [b'{', ..] => true,
        [b'[', ..] => value
            .elements()
            .is_ok_and(|items| items.iter().any(holds_object)),
        _ => false,
    }
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
