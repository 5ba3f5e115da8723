//! What Google's discovery documents say of a method, and the request of a call. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use tasker_core::Json;
use tasker_core::service::{ServiceCall, ServiceError};
use url::Url;

use super::media::{Media, Upload};
use crate::entries::Entries;

/// An API: what its discovery document says, as far as requests need it.
#[derive(Clone, Debug)]
pub(super) struct Api {
    pub(super) name: String,
    version: String,
    root_url: String,
    service_path: String,
    /// Parameters of every method (`fields`, `alt` …).
    parameters: BTreeMap<String, Parameter>,
    pub(super) methods: Vec<Method>,
}

/// A method.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Method {
    pub(super) id: String,
    #[serde(rename = "httpMethod")]
    pub(super) verb: String,
    path: String,
    #[serde(default)]
    pub(super) parameters: BTreeMap<String, Parameter>,
    #[serde(default)]
    pub(super) scopes: Vec<String>,
    /// Present when it takes a body.
    pub(super) request: Option<serde_json::Value>,
    /// Present when it answers one.
    pub(super) response: Option<serde_json::Value>,
    /// Whether it takes media beside the body.
    #[serde(default)]
    pub(super) supports_media_upload: bool,
}

/// A parameter.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Parameter {
    pub(super) location: String,
    #[serde(default)]
    pub(super) repeated: bool,
    #[serde(default)]
    pub(super) required: bool,
}

/// A call as the task wrote it.
pub(super) struct Asked {
    pub(super) url: Url,
    pub(super) body: Option<Json>,
    /// Instead of the body, which is in it.
    pub(super) upload: Option<Upload>,
    /// Who it is done for, when the call says so.
    pub(super) subject: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    name: String,
    version: String,
    root_url: String,
    service_path: String,
    #[serde(default)]
    parameters: BTreeMap<String, Parameter>,
    #[serde(default)]
    methods: Methods,
    #[serde(default)]
    resources: BTreeMap<String, Resource>,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(default)]
    methods: Methods,
    #[serde(default)]
    resources: BTreeMap<String, Resource>,
}

/// A list in our own table, members by name in Google's documents.
#[derive(Deserialize)]
#[serde(untagged)]
enum Methods {
    List(Vec<Method>),
    Named(BTreeMap<String, Method>),
}

impl Default for Methods {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Methods {
    fn into_list(self) -> Vec<Method> {
        match self {
            Self::List(methods) => methods,
            Self::Named(methods) => methods.into_values().collect(),
        }
    }
}

impl From<Document> for Api {
    fn from(document: Document) -> Self {
        fn gather(resources: BTreeMap<String, Resource>, methods: &mut Vec<Method>) {
            for resource in resources.into_values() {
                methods.extend(resource.methods.into_list());
                gather(resource.resources, methods);
            }
        }
        let mut methods = document.methods.into_list();
        gather(document.resources, &mut methods);
        Self {
            name: document.name,
            version: document.version,
            root_url: document.root_url,
            service_path: document.service_path,
            parameters: document.parameters,
            methods,
        }
    }
}

/// The common APIs, from the table that ships with the crate.
pub(super) fn common() -> Result<Vec<Api>, ServiceError> {
    #[derive(Deserialize)]
    struct Table {
        apis: Vec<Document>,
    }
    let table: Table = serde_json::from_str(include_str!("apis.json"))
        .map_err(|error| ServiceError::internal(format!("the table of Google APIs: {error}")))?;
    Ok(table.apis.into_iter().map(Api::from).collect())
}

/// An API from its discovery document.
pub(super) fn read(document: &Json) -> Result<Api, String> {
    let document: Document = document.to().map_err(|error| error.to_string())?;
    Ok(document.into())
}

/// The method that a dotted name means within an API: `gmail.users.messages.list`, `admin.directory.domains.list`,
/// `admin.domains.list`, `drive.v3.files.list`.
impl Api {
    pub(super) fn method(&self, name: &str) -> Option<&Method> {
        let (api, rest) = name.split_once('.')?;
        if api != self.name {
            return None;
        }
        let rest = match rest.split_once('.') {
            Some((version, rest)) if is_version(version) => {
                let own = self.version == version || self.version.ends_with(&format!("_{version}"));
                own.then_some(rest)?
            }
            _ => rest,
        };
        let mut methods = self.methods.iter();
        methods.find(|method| {
            method.id == rest
                || method
                    .id
                    .split_once('.')
                    .is_some_and(|(_, tail)| tail == rest)
        })
    }

    /// The name by which a task calls a method.
    pub(super) fn name_of(&self, method: &Method) -> String {
        match method.id.split_once('.') {
            Some((first, _)) if first == self.name => method.id.clone(),
            _ => format!("{}.{}", self.name, method.id),
        }
    }

    /// The request of a call. `root` replaces the API's own root.
    pub(super) fn request(
        &self,
        method: &Method,
        call: &ServiceCall,
        root: Option<&str>,
    ) -> Result<Asked, ServiceError> {
        let wrong = |text: String| {
            ServiceError::validation(format!("{}.{}: {text}", call.service, call.method()))
        };
        let mut given = entries(call, 0)?;
        let options = entries(call, 1)?;
        let known = |name: &str| {
            method
                .parameters
                .get(name)
                .or_else(|| self.parameters.get(name))
        };
        let mut body = None;
        let mut subject = None;
        let mut media = None;
        for (name, value) in options {
            match name.as_str() {
                "requestBody" | "resource" | "body" => body = Some(value),
                "__impersonate" | "impersonate" | "subject" => subject = value.to().ok(),
                "media" => media = Some(value),
                _ => {
                    return Err(wrong(format!(
                        "the second argument holds {name:?}; it takes requestBody, media and impersonate"
                    )));
                }
            }
        }
        given.retain(|(name, value)| {
            if known(name).is_some() {
                return value.text() != "null";
            }
            match name.as_str() {
                "requestBody" | "resource" | "body" => body = Some(value.clone()),
                "__impersonate" => subject = value.to().ok(),
                "media" => media = Some(value.clone()),
                _ => return true,
            }
            false
        });
        if body.is_some() && method.request.is_none() {
            return Err(wrong(format!("{} takes no body", method.id)));
        }
        if media.is_some() && !method.supports_media_upload {
            return Err(wrong(format!("{} takes no media", method.id)));
        }
        let media = media.map(|media| Media::read(&media)).transpose();
        let upload = media
            .map_err(&wrong)?
            .map(|media| media.upload(body.as_ref()));
        let mut path = method.path.clone();
        let mut query: Vec<(String, String)> = Vec::new();
        for (name, value) in &given {
            let parameter = known(name).ok_or_else(|| {
                let names: Vec<&str> = method.parameters.keys().map(String::as_str).collect();
                wrong(format!(
                    "there is no parameter {name:?}; it takes {}{}",
                    names.join(", "),
                    if method.request.is_some() {
                        " and requestBody"
                    } else {
                        ""
                    }
                ))
            })?;
            let values = values(value, parameter.repeated).ok_or_else(|| {
                wrong(format!(
                    "the parameter {name:?} is a text, a number, true or false{}",
                    if parameter.repeated {
                        ", or a list of them"
                    } else {
                        ""
                    }
                ))
            })?;
            if parameter.location == "path" {
                let value = values.first().map_or("", String::as_str);
                path = expand(&path, name, value)
                    .ok_or_else(|| wrong(format!("{value:?} cannot be the parameter {name:?}")))?;
            } else {
                query.extend(values.into_iter().map(|value| (name.clone(), value)));
            }
        }
        // The customer of the domain that the service account works for.
        if path.contains("{customer}") {
            path = path.replace("{customer}", "my_customer");
        }
        let missing = method.parameters.iter().find(|(name, parameter)| {
            let in_query = query.iter().any(|(known, _)| known == *name);
            parameter.required
                && match parameter.location.as_str() {
                    "path" => {
                        path.contains(&format!("{{{name}}}"))
                            || path.contains(&format!("{{+{name}}}"))
                    }
                    _ => !in_query,
                }
        });
        if let Some((name, _)) = missing {
            return Err(wrong(format!("the parameter {name:?} is missing")));
        }
        if method.response.is_some() && !query.iter().any(|(name, _)| name == "alt") {
            query.push(("alt".to_owned(), "json".to_owned()));
        }
        if let Some(upload) = &upload {
            if query.iter().any(|(name, _)| name == "uploadType") {
                let text =
                    "uploadType is set by the service: multipart, or media without requestBody";
                return Err(wrong(text.to_owned()));
            }
            query.push(("uploadType".to_owned(), upload.kind.to_owned()));
        }
        let root = root.unwrap_or(&self.root_url).trim_end_matches('/');
        let service = self.service_path.trim_start_matches('/');
        let upload_path = if upload.is_some() { "upload/" } else { "" };
        let mut url =
            Url::parse(&format!("{root}/{upload_path}{service}{path}")).map_err(|error| {
                ServiceError::internal(format!("the URL of {} is none: {error}", method.id))
            })?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(&query);
        }
        Ok(Asked {
            url,
            body,
            upload,
            subject,
        })
    }
}

/// The scope to ask for, of those that the document lists (and, when given, that the account was granted): for a read the
/// API's own read-only one, else one named like the method, else the first that is not for everything. Of two the one
/// with the shorter name: `drive.readonly` reads what `drive.meet.readonly` does not.
pub(super) fn scope<'a>(method: &'a Method, granted: Option<&[String]>) -> Option<&'a str> {
    let reads = method.verb == "GET";
    let verb = method.id.rsplit('.').next().unwrap_or_default();
    let allowed = |scope: &&String| granted.is_none_or(|granted| granted.contains(scope));
    let width = |scope: &str| {
        let last = scope.rsplit(['/', '.']).next().unwrap_or_default();
        let broad = scope.ends_with("cloud-platform") || !scope.contains("/auth/");
        let special = scope.contains(".addons.") || last == "metadata" || last == "created";
        match last {
            _ if special => 5,
            _ if broad => 4,
            "readonly" => i32::from(!reads) * 3,
            _ if last == verb => 1,
            _ => 2,
        }
    };
    let scopes = method.scopes.iter().filter(allowed);
    let parts = |scope: &str| scope.split('.').count();
    scopes
        .min_by_key(|scope| (width(scope), parts(scope)))
        .map(String::as_str)
}

pub(super) fn is_version(word: &str) -> bool {
    let digits = word.strip_prefix('v').unwrap_or_default();
    digits.starts_with(|c: char| c.is_ascii_digit())
}

fn entries(call: &ServiceCall, index: usize) -> Result<Vec<(String, Json)>, ServiceError> {
    match call.args().get(index) {
        None => Ok(Vec::new()),
        Some(json) if json.text() == "null" => Ok(Vec::new()),
        Some(json) => json.to::<Entries>().map(|entries| entries.0).map_err(|_| {
            ServiceError::validation(format!(
                "{}.{}: argument {} is one object",
                call.service,
                call.method(),
                index + 1
            ))
        }),
    }
}

fn values(value: &Json, repeated: bool) -> Option<Vec<String>> {
    match value.text().as_bytes() {
        [b'"', ..] => Some(vec![value.to().ok()?]),
        [b'[', ..] if repeated => {
            let items = value.elements().ok()?;
            let items = items.iter().map(|item| match item.text().as_bytes() {
                [b'[' | b'{' | b'n', ..] => None,
                _ => values(item, false)?.pop(),
            });
            items.collect()
        }
        [b'{' | b'[', ..] => None,
        _ => Some(vec![value.text().to_owned()]),
    }
}

/// RFC 6570: `{name}` takes a value with everything but letters, digits and `-._~` encoded, `{+name}` keeps slashes and
/// their like. A value that would lead to another path is refused.
fn expand(path: &str, name: &str, value: &str) -> Option<String> {
    let simple = format!("{{{name}}}");
    let reserved = format!("{{+{name}}}");
    let keeps = path.contains(&reserved);
    let mut encoded = String::new();
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte as char);
            }
            b'?' | b'#' | b'\\' if keeps => return None,
            _ if keeps && b":/[]@!$&'()*+,;=".contains(&byte) => encoded.push(byte as char),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    let leads_away = encoded
        .split('/')
        .any(|part| matches!(part, "" | "." | ".."));
    (!leads_away).then(|| path.replace(&simple, &encoded).replace(&reserved, &encoded))
}
