//! A chain as users of supabase-js write it, turned into one PostgREST request. Pure.
//!
//! The request is the one that `@supabase/postgrest-js` sends for the same chain, with these differences: an object
//! where a filter wants a value is refused (the client sends `[object Object]`), and a quote within a listed value
//! is escaped (the client sends a list that means something else).

use serde::Deserialize;
use tasker_core::Json;
use tasker_core::service::{Link, ServiceError};

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

/// What a chain may be about. An empty list allows nothing, `None` everything.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Tables and views, also those embedded in a `select`.
    pub tables: Option<Vec<String>>,
    /// Functions that `rpc` may call.
    pub functions: Option<Vec<String>>,
    /// `select`, `insert`, `upsert`, `update`, `delete`, `rpc`.
    pub operations: Option<Vec<String>>,
    /// Schemas that `schema(…)` may name besides the configured one.
    pub schemas: Option<Vec<String>>,
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

/// Functions that a `select` may call; any other name before `()` embeds a table.
const AGGREGATES: [&str; 5] = ["avg", "count", "max", "min", "sum"];

const OPERATIONS: [&str; 6] = ["select", "insert", "upsert", "update", "delete", "rpc"];

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

/// A filter or a modifier.
fn step(query: &mut Query, link: &Link) -> Result<(), ServiceError> {
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

    fn get(&self, name: &str) -> Option<&str> {
        let mut params = self.params.iter();
        params
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// As `URLSearchParams.set`.
    fn set(&mut self, name: &str, value: String) {
        match self.params.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.params.push((name.to_owned(), value)),
        }
    }

    /// As `URLSearchParams.append`.
    fn filter(&mut self, column: &str, value: String) -> Result<(), ServiceError> {
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

/// The arguments of a link.
struct Args<'a> {
    link: &'a Link,
    args: &'a [Json],
}

impl<'a> Args<'a> {
    fn of(link: &'a Link) -> Result<Self, ServiceError> {
        match link.args.as_deref() {
            Some(args) => Ok(Self { link, args }),
            None => Err(format_error(&format!("{} is not called in it", link.name))),
        }
    }

    fn wrong(&self, text: &str) -> ServiceError {
        ServiceError::validation(format!("supabase: {}(…): {text}", self.link.name))
    }

    fn get(&self, index: usize) -> Option<&'a Json> {
        self.args.get(index)
    }

    fn value(&self, index: usize, what: &str) -> Result<&'a Json, ServiceError> {
        let value = self.get(index);
        value.ok_or_else(|| self.wrong(&format!("argument {} is missing: {what}", index + 1)))
    }

    fn text(&self, index: usize, what: &str) -> Result<String, ServiceError> {
        let value = self.value(index, what)?.to();
        value.map_err(|_| self.wrong(&format!("argument {} is a text: {what}", index + 1)))
    }

    fn column(&self) -> Result<String, ServiceError> {
        self.text(0, "the name of a column")
    }

    fn optional(&self, index: usize) -> Result<Option<String>, ServiceError> {
        match self.get(index) {
            None => Ok(None),
            Some(value) => value
                .to()
                .map_err(|_| self.wrong(&format!("argument {} is a text", index + 1))),
        }
    }

    fn number(&self, index: usize) -> Result<i64, ServiceError> {
        let value = self.value(index, "a whole number")?.to();
        value.map_err(|_| self.wrong(&format!("argument {} is a whole number", index + 1)))
    }

    fn list(&self, index: usize) -> Result<&'a Json, ServiceError> {
        let value = self.value(index, "a list")?;
        if is_array(value) {
            Ok(value)
        } else {
            Err(self.wrong(&format!("argument {} is a list", index + 1)))
        }
    }

    fn options<T: Default + for<'de> Deserialize<'de>>(
        &self,
        index: usize,
    ) -> Result<T, ServiceError> {
        match self.get(index) {
            None => Ok(T::default()),
            Some(value) if value.text() == "null" => Ok(T::default()),
            Some(value) => value
                .to()
                .map_err(|error| self.wrong(&format!("its options cannot be read: {error}"))),
        }
    }

    /// A value as JavaScript writes it into a text: lists joined by commas, `null` within them empty.
    fn plain(&self, value: &Json) -> Result<String, ServiceError> {
        let text = value.text();
        match text.as_bytes() {
            [b'"', ..] => value.to().map_err(|_| {
                self.wrong("a value holds half a surrogate pair, which no database text can")
            }),
            [b'[', ..] => {
                let items: Vec<Json> = value.to().map_err(ServiceError::internal)?;
                let items: Result<Vec<String>, ServiceError> = items
                    .iter()
                    .map(|item| match item.text() {
                        "null" => Ok(String::new()),
                        _ => self.plain(item),
                    })
                    .collect();
                Ok(items?.join(","))
            }
            [b'{', ..] => Err(self.wrong(
                "an object is no value to compare with; give a text, a number, true, false or null",
            )),
            _ => Ok(text.to_owned()),
        }
    }
}

/// The values of `in.(…)`: each once, in quotes where a letter of the list's own grammar is in them.
fn listed(args: &Args<'_>, list: &Json) -> Result<String, ServiceError> {
    let items: Vec<Json> = list.to().map_err(ServiceError::internal)?;
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
fn columns_of(columns: Option<&str>) -> String {
    let mut quoted = false;
    let kept = columns.unwrap_or("*").chars().filter(|letter| {
        if *letter == '"' {
            quoted = !quoted;
        }
        quoted || !letter.is_whitespace()
    });
    kept.collect()
}

/// Every table that a `select` embeds must be allowed as well.
fn check_embedded(query: &Query, allowed: &Allowed) -> Result<(), ServiceError> {
    let (Some(tables), Some(select)) = (allowed.tables.as_deref(), query.get("select")) else {
        return Ok(());
    };
    for table in embedded(select) {
        permit("table", &table, Some(tables))?;
    }
    Ok(())
}

/// The names before each `(` of a select, except functions (`amount.sum()`, `count()`): `alias:table!hint(columns)`.
fn embedded(select: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut token = String::new();
    let mut quoted = false;
    let mut letters = select.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => quoted = !quoted,
            _ if quoted => token.push(letter),
            '(' => {
                let last = token.rsplit(['.', ':']).next().unwrap_or_default();
                let function = letters.peek() == Some(&')') && AGGREGATES.contains(&last);
                let name = token.rsplit(':').next().unwrap_or_default();
                let name = name.trim_start_matches("...");
                let name = name.split('!').next().unwrap_or_default();
                if !function {
                    names.push(name.to_owned());
                }
                token.clear();
            }
            ',' | ')' => token.clear(),
            _ => token.push(letter),
        }
    }
    names
}

fn under(table: Option<&str>, name: &str) -> String {
    match table {
        Some(table) => format!("{table}.{name}"),
        None => name.to_owned(),
    }
}

fn is_array(value: &Json) -> bool {
    value.text().starts_with('[')
}

/// Whether a value is an object, or a list with one somewhere in it.
fn holds_object(value: &Json) -> bool {
    match value.text().as_bytes() {
        [b'{', ..] => true,
        [b'[', ..] => value
            .to::<Vec<Json>>()
            .is_ok_and(|items| items.iter().any(holds_object)),
        _ => false,
    }
}

fn check_name(what: &str, name: &str) -> Result<(), ServiceError> {
    let bad = name.is_empty()
        || name == "."
        || name == ".."
        || name.contains(['/', '\\'])
        || name.chars().any(char::is_control);
    if bad {
        return Err(ServiceError::validation(format!(
            "supabase: {name:?} cannot be the name of a {what}"
        )));
    }
    Ok(())
}

fn permit(what: &str, name: &str, allowed: Option<&[String]>) -> Result<(), ServiceError> {
    match allowed {
        Some(names) if !names.iter().any(|known| known == name) => {
            Err(ServiceError::authorization(format!(
                "supabase: the {what} {name:?} is not on the list of allowed ones; the host adds it to the service's options"
            )))
        }
        _ => Ok(()),
    }
}

fn permit_operation(name: &str, allowed: &Allowed) -> Result<(), ServiceError> {
    if OPERATIONS.contains(&name) {
        permit("operation", name, allowed.operations.as_deref())
    } else {
        Ok(())
    }
}

fn format_error(text: &str) -> ServiceError {
    ServiceError::validation(format!(
        "supabase: the chain cannot be a request: {text}; write it as in supabase-js: from('table').select('*').eq('id', 1)"
    ))
    .with_code("INVALID_CHAIN_FORMAT")
}

fn unknown_method(name: &str, text: &str) -> ServiceError {
    ServiceError::not_found(format!("supabase: {name:?} cannot stand here: {text}"))
        .with_code("METHOD_NOT_FOUND")
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
