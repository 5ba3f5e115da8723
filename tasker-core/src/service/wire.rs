//! What is said to a service over HTTP and what it answers, used by the remote proxy and by the HTTP services alike.
//!
//! Requests, one of (the first member present decides):
//!
//! ```json
//! {"chain": [{"property": "from", "args": ["t"]}, {"property": "select"}]}
//! {"method": "admin.domains.list", "args": [{"customer": "my_customer"}]}
//! {"action": "getKey", "namespace": "global", "key": "OPENAI_API_KEY"}
//! ```
//!
//! `method` may be an array of names; `args` that are no array are the one argument; the other members of an `action`
//! are one object argument unless there is `args`. A chain link may say `"type":"get"` or `"type":"call"`.
//!
//! Answers: [`Envelope`]. `error` is text, as the services document writes it; what a program needs stands in
//! `errorDetails`. When read, an `error` that is an object with `type`, `code`, `message`, `details` is understood too.
//! The HTTP status of a failure is the error's ([`ServiceError::status`]); read back, `errorDetails.type` decides and
//! the status only where there is none ([`ServiceErrorType::from_status`]).

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tasker_adaptor::{Json, Timestamp};

use super::{Link, ServiceError, ServiceErrorType};

/// The links that a request body asks for, in any of the three forms.
///
/// # Errors
/// `VALIDATION_ERROR` that names the forms.
pub fn parse_request(body: &Json) -> Result<Vec<Link>, ServiceError> {
    let members: Members = body.to().map_err(|_| {
        ServiceError::validation(format!("the request is not a JSON object; {FORMS}"))
    })?;
    let links = if let Some(chain) = members.get("chain") {
        chain_links(chain)?
    } else if let Some(method) = members.get("method") {
        let args = match members.get("args") {
            Some(args) => positional(args),
            None => Vec::new(),
        };
        called(&names(method, "method")?, args)
    } else if let Some(action) = members.get("action") {
        let args = match members.get("args") {
            Some(args) => positional(args),
            None => members.without("action").into_iter().collect(),
        };
        called(&names(action, "action")?, args)
    } else {
        return Err(ServiceError::validation(format!(
            "the request names nothing to do; {FORMS}"
        )));
    };
    if links.is_empty() || links.iter().any(|link| link.name.is_empty()) {
        return Err(ServiceError::validation(format!(
            "the request has an empty chain or an empty name in it; {FORMS}"
        )));
    }
    Ok(links)
}

/// The body that asks for these links: the `{chain}` form, which can say everything.
#[expect(
    clippy::missing_panics_doc,
    reason = "text and JSON values always serialize"
)]
pub fn request(links: &[Link]) -> Json {
    #[derive(Serialize)]
    struct Body<'a> {
        chain: &'a [Link],
    }
    Json::from(&Body { chain: links }).expect("links hold text and JSON values only")
}

const FORMS: &str = r#"send {"chain":[{"property":"name","args":[…]}]}, {"method":"dotted.name","args":[…]} or {"action":"dotted.name",…}"#;

fn chain_links(chain: &Json) -> Result<Vec<Link>, ServiceError> {
    #[derive(Deserialize)]
    struct Item {
        #[serde(alias = "name")]
        property: String,
        args: Option<Json>,
        r#type: Option<String>,
    }
    let items: Vec<Item> = chain.to().map_err(|error| {
        ServiceError::validation(format!("the chain cannot be read ({error}); {FORMS}"))
    })?;
    let items = items.into_iter();
    Ok(items
        .map(|item| Link {
            name: item.property,
            args: match (item.args, item.r#type.as_deref()) {
                (_, Some("get")) => None,
                (Some(args), _) => Some(positional(&args)),
                (None, Some("call")) => Some(Vec::new()),
                (None, _) => None,
            },
        })
        .collect())
}

fn names(method: &Json, member: &str) -> Result<Vec<String>, ServiceError> {
    if let Ok(dotted) = method.to::<String>() {
        return Ok(dotted.split('.').map(str::to_owned).collect());
    }
    method.to().map_err(|_| {
        ServiceError::validation(format!(
            "{member:?} is neither a dotted name nor an array of names; {FORMS}"
        ))
    })
}

fn called(names: &[String], args: Vec<Json>) -> Vec<Link> {
    let mut links: Vec<Link> = names.iter().map(Link::through).collect();
    if let Some(last) = links.last_mut() {
        last.args = Some(args);
    }
    links
}

/// An array is the arguments, `null` none, anything else the only one.
fn positional(args: &Json) -> Vec<Json> {
    match args.text() {
        "null" => Vec::new(),
        _ => args.to().unwrap_or_else(|_| vec![args.clone()]),
    }
}

/// The members of an object in the order written, values as exact text.
struct Members(Vec<(String, Json)>);

impl Members {
    /// The last member of this name.
    fn get(&self, name: &str) -> Option<&Json> {
        self.0
            .iter()
            .rfind(|(member, _)| member == name)
            .map(|(_, value)| value)
    }

    /// An object of the other members; `None` when there are none.
    fn without(&self, name: &str) -> Option<Json> {
        let mut text = String::new();
        for (member, value) in self.0.iter().filter(|(member, _)| member != name) {
            text.push(if text.is_empty() { '{' } else { ',' });
            text.push_str(Json::from(member).ok()?.text());
            text.push(':');
            text.push_str(value.text());
        }
        text.push('}');
        Json::parse(text).ok()
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
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
        deserializer.deserialize_map(Object)
    }
}

/// The standard answer: `{success, data, error, errorDetails, metadata: {duration, timestamp, requestId}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Envelope {
    /// Whether it was done.
    pub success: bool,
    /// The result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
    /// What went wrong, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What went wrong, for programs.
    #[serde(rename = "errorDetails", skip_serializing_if = "Option::is_none")]
    pub error_details: Option<ErrorDetails>,
    /// About the request.
    pub metadata: Metadata,
}

/// The part of a [`ServiceError`] that programs use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorDetails {
    /// One of the ten words.
    pub r#type: String,
    /// The service's code; the type's word when it has none.
    pub code: String,
    /// HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// More, as data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Json>,
    /// How long to wait before the next attempt, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// About a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// How long it took, in milliseconds.
    pub duration: u64,
    /// When it was answered, ISO 8601.
    pub timestamp: String,
    /// Names the request in logs.
    pub request_id: String,
}

impl Metadata {
    /// Of a request begun and answered at these times.
    pub fn new(begun: Timestamp, answered: Timestamp, request_id: impl Into<String>) -> Self {
        Self {
            duration: u64::try_from(answered.millis_since(begun)).unwrap_or(0),
            timestamp: answered.to_string(),
            request_id: request_id.into(),
        }
    }
}

impl Envelope {
    /// The answer to a request and the HTTP status that goes with it.
    pub fn answer(result: &Result<Json, ServiceError>, metadata: Metadata) -> (u16, Self) {
        match result {
            Ok(data) => (200, Self::success(data.clone(), metadata)),
            Err(error) => {
                let status = error.status();
                let status = if (400..600).contains(&status) {
                    status
                } else {
                    error.kind.status()
                };
                (status, Self::failure(error, metadata))
            }
        }
    }

    /// It was done.
    pub const fn success(data: Json, metadata: Metadata) -> Self {
        Self {
            success: true,
            data: Some(data),
            error: None,
            error_details: None,
            metadata,
        }
    }

    /// It was not done.
    pub fn failure(error: &ServiceError, metadata: Metadata) -> Self {
        Self {
            success: false,
            data: None,
            error: Some(error.message.clone()),
            error_details: Some(ErrorDetails {
                r#type: error.kind.as_str().to_owned(),
                code: error.code().to_owned(),
                status: Some(error.status()),
                details: error.details.clone(),
                retry_after_ms: error.retry_after_ms,
            }),
            metadata,
        }
    }

    /// Reads a service's answer. A body that is no envelope (no member `success`) is the result itself where the status
    /// is a success; a failure without words of its own gets its type from the status.
    pub fn read(
        status: u16,
        body: &Json,
        retry_after_ms: Option<u64>,
    ) -> Result<Json, ServiceError> {
        let good = (200..300).contains(&status);
        // serde reads a struct from an array as well; an array is never an envelope.
        let object = body.text().starts_with('{');
        let envelope = object.then(|| body.to::<Loose>().ok()).flatten();
        match envelope {
            Some(Loose {
                success: Some(true),
                data,
                ..
            }) if good => Ok(data.unwrap_or_default()),
            None | Some(Loose { success: None, .. }) if good => Ok(body.clone()),
            envelope => Err(envelope
                .unwrap_or_default()
                .into_error(if good { 502 } else { status }, retry_after_ms)),
        }
    }
}

/// An answer as services write it: every member may be missing, `error` is text or an object.
#[derive(Default, Deserialize)]
struct Loose {
    success: Option<bool>,
    data: Option<Json>,
    error: Option<Json>,
    message: Option<Json>,
    details: Option<Json>,
    #[serde(rename = "errorDetails")]
    error_details: Option<Json>,
}

#[derive(Default, Deserialize)]
struct LooseError {
    r#type: Option<String>,
    code: Option<Json>,
    message: Option<String>,
    status: Option<u16>,
    details: Option<Json>,
    #[serde(rename = "retryAfterMs")]
    retry_after_ms: Option<u64>,
}

impl Loose {
    fn into_error(self, status: u16, retry_after_ms: Option<u64>) -> ServiceError {
        let read = |json: &Json| json.to::<LooseError>().ok();
        let object = self.error.as_ref().and_then(read).unwrap_or_default();
        let details = self.error_details.as_ref().and_then(read);
        let text = |json: Option<&Json>| json.and_then(|json| json.to::<String>().ok());
        let message = text(self.error.as_ref())
            .or(object.message)
            .or_else(|| text(self.message.as_ref()))
            .unwrap_or_else(|| format!("the service answered status {status} and no reason"));
        let details = details.unwrap_or(LooseError {
            message: None,
            ..object
        });
        let kind = details
            .r#type
            .as_deref()
            .and_then(ServiceErrorType::from_word)
            .unwrap_or(ServiceErrorType::from_status(status));
        let code = details.code.map(|code| {
            code.to::<String>()
                .unwrap_or_else(|_| code.text().to_owned())
        });
        ServiceError {
            code: code.filter(|code| code != kind.as_str()),
            details: details.details.or(self.details),
            status: Some(details.status.unwrap_or(status))
                .filter(|status| *status != kind.status()),
            retry_after_ms: details.retry_after_ms.or(retry_after_ms),
            ..ServiceError::of(kind, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::chain;

    fn json(text: &str) -> Json {
        Json::parse(text).unwrap()
    }

    fn metadata() -> Metadata {
        Metadata::new(Timestamp::from_millis(5), Timestamp::from_millis(12), "r1")
    }

    #[test]
    fn every_request_form_gives_its_chain() {
        for (body, path, args) in [
            (
                r#"{"chain":[{"property":"from","args":["t"]},{"property":"select","args":["*"]},{"property":"eq","args":["c",1.0]}]}"#,
                "from().select().eq()",
                r#"[["t"],["*"],["c",1.0]]"#,
            ),
            (
                r#"{"chain":[{"property":"admin","type":"get","args":[]},{"property":"list","type":"call"}]}"#,
                "admin.list",
                "[]",
            ),
            (
                r#"{"chain":[{"property":"admin"},{"name":"list","args":{"a":1}}],"method":"x"}"#,
                "admin.list",
                r#"[{"a":1}]"#,
            ),
            (
                r#"{"method":"getKey","args":["a","b"]}"#,
                "getKey",
                r#"["a","b"]"#,
            ),
            (
                r#"{"method":"a.b","args":{"z":1,"y":2}}"#,
                "a.b",
                r#"[{"z":1,"y":2}]"#,
            ),
            (r#"{"method":["a","b"],"args":null}"#, "a.b", "[]"),
            (r#"{"method":"a"}"#, "a", "[]"),
            (
                r#"{"action":"getKey","namespace":"global","key":"K\u0000"}"#,
                "getKey",
                r#"[{"namespace":"global","key":"K\u0000"}]"#,
            ),
            (
                r#"{"action":"chat.completions.create","args":[{"model":"m"}]}"#,
                "chat.completions.create",
                r#"[{"model":"m"}]"#,
            ),
            (r#"{"action":"listNamespaces"}"#, "listNamespaces", "[]"),
        ] {
            let links = parse_request(&json(body)).unwrap();
            assert_eq!(
                chain::recorded(&links),
                (path.to_owned(), json(args)),
                "{body}"
            );
            assert_eq!(parse_request(&request(&links)).unwrap(), links, "{body}");
        }
    }

    #[test]
    fn a_request_in_no_form_is_told_the_forms() {
        for body in [
            "[]",
            "7",
            "{}",
            r#"{"chain":[]}"#,
            r#"{"chain":"a"}"#,
            r#"{"method":7}"#,
            r#"{"method":""}"#,
            r#"{"method":"a..b"}"#,
            r#"{"method":[]}"#,
        ] {
            let error = parse_request(&json(body)).unwrap_err();
            assert_eq!(error.kind, ServiceErrorType::Validation, "{body}");
            assert!(error.message.contains(FORMS), "{}", error.message);
        }
    }

    #[test]
    fn the_envelope_is_as_the_services_document_writes_it() {
        let (status, good) = Envelope::answer(&Ok(json("[1.0]")), metadata());
        assert_eq!(status, 200);
        assert_eq!(
            Json::from(&good).unwrap().text(),
            r#"{"success":true,"data":[1.0],"metadata":{"duration":7,"timestamp":"1970-01-01T00:00:00.012Z","requestId":"r1"}}"#
        );
        let error = ServiceError::not_found("no such key").with_details(json(r#"{"key":"k"}"#));
        let (status, bad) = Envelope::answer(&Err(error), metadata());
        assert_eq!(status, 404);
        assert_eq!(
            Json::from(&bad).unwrap().text(),
            r#"{"success":false,"error":"no such key","errorDetails":{"type":"NOT_FOUND_ERROR","code":"NOT_FOUND_ERROR","status":404,"details":{"key":"k"}},"metadata":{"duration":7,"timestamp":"1970-01-01T00:00:00.012Z","requestId":"r1"}}"#
        );
    }

    #[test]
    fn an_answer_reads_back_as_it_was_given() {
        let result = Envelope::read(
            200,
            &Json::from(&Envelope::success(json(r#"{"b":1,"a":1.0}"#), metadata())).unwrap(),
            None,
        );
        assert_eq!(result.unwrap(), json(r#"{"b":1,"a":1.0}"#));
        for kind in ServiceErrorType::ALL {
            let error = ServiceError::of(kind, "why")
                .with_code("c")
                .with_details(json("[1]"))
                .with_retry_after_ms(9);
            let failure = error.to_failure();
            let (status, envelope) = Envelope::answer(&Err(error), metadata());
            let read = Envelope::read(status, &Json::from(&envelope).unwrap(), None);
            assert_eq!(read.unwrap_err().to_failure(), failure, "{kind}");
        }
    }

    #[test]
    fn what_other_services_answer_is_understood() {
        let read = |status, body: &str| Envelope::read(status, &json(body), Some(3));
        // No envelope: the body is the result.
        for body in [
            r#"{"domains":[]}"#,
            "[true,1,null,null,null,null]",
            "null",
            "7",
        ] {
            assert_eq!(read(200, body).unwrap(), json(body));
        }
        assert_eq!(read(200, r#"{"success":true}"#).unwrap(), Json::null());
        let error = read(
            200,
            r#"{"success":false,"error":{"code":"K","message":"m","details":1,"type":"CONFLICT_ERROR"}}"#,
        )
        .unwrap_err();
        assert_eq!(
            (error.kind, error.code()),
            (ServiceErrorType::Conflict, "K")
        );
        assert_eq!(
            (error.message.as_str(), error.details),
            ("m", Some(json("1")))
        );
        let error = read(429, r#"{"error":"slow"}"#).unwrap_err();
        assert_eq!(error.kind, ServiceErrorType::RateLimit);
        assert_eq!(
            (error.message.as_str(), error.retry_after_ms),
            ("slow", Some(3))
        );
        let error = read(503, r#"{"success":true,"data":1}"#).unwrap_err();
        assert_eq!(
            (error.kind, error.status()),
            (ServiceErrorType::External, 503)
        );
        let error = read(404, "[]").unwrap_err();
        assert_eq!(
            error.message,
            "the service answered status 404 and no reason"
        );
    }
}
