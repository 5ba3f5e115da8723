//! A Google Workspace of 5 domains with 40 users each and their mail: the token endpoint, the directory and Gmail, as
//! Google documents them. All names are invented.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ledger::Ledger;

/// The domains.
pub const DOMAINS: [&str; 5] = [
    "north.example",
    "south.example",
    "east.example",
    "west.example",
    "centre.example",
];
/// Users of each domain.
pub const USERS: usize = 40;
/// The administrator on whose behalf the directory is read.
pub const ADMIN: &str = "admin@north.example";
/// The service account.
const ROBOT: &str = "robot@project.iam.gserviceaccount.com";
/// Its keys are those of the tests of the service: they open nothing anywhere.
const PRIVATE_KEY: &str = include_str!("../../../tasker-proxies/src/gapi/test_key.pem");
const PUBLIC_KEY: &str = include_str!("../../../tasker-proxies/src/gapi/test_key_public.pem");

const SCOPES: [(&str, &str); 3] = [
    (
        "domains",
        "https://www.googleapis.com/auth/admin.directory.domain.readonly",
    ),
    (
        "users",
        "https://www.googleapis.com/auth/admin.directory.user.readonly",
    ),
    ("mail", "https://www.googleapis.com/auth/gmail.readonly"),
];

/// A user of the workspace.
pub struct User {
    /// Address.
    pub email: String,
    /// Whole name.
    pub name: String,
    /// Suspended users have no mail to be read.
    pub suspended: bool,
    messages: Vec<Message>,
}

struct Message {
    id: String,
    subject: String,
    from: String,
    date: String,
    snippet: String,
}

/// The users of a domain by its number, always the same.
pub fn users(domain: usize) -> Vec<User> {
    let host = DOMAINS[domain];
    let user = |number: usize| {
        let email = format!("user{number:02}@{host}");
        let count = (domain * 7 + number * 3) % 9;
        let messages = (0..count).map(|n| Message {
            id: format!("{domain:x}{number:03x}{n:012x}"),
            subject: if n % 3 == 2 {
                format!("Lunch {n}")
            } else {
                format!("Report {n}")
            },
            from: format!("user{:02}@{host}", (number + n + 1) % USERS),
            date: format!("Mon, {:02} Jun 2026 09:{number:02}:00 +0000", n + 1),
            snippet: format!("message {n} to {email}"),
        });
        User {
            messages: messages.collect(),
            name: format!("User {number:02} of {host}"),
            suspended: number % 13 == 12,
            email,
        }
    };
    (0..USERS).map(user).collect()
}

impl User {
    /// The messages that a search finds. Of Gmail's language the fake knows words of the subject: `subject:report`.
    fn search(&self, query: &str) -> Vec<&Message> {
        let word = query.trim().trim_start_matches("subject:").to_lowercase();
        let messages = self.messages.iter();
        let found = messages.filter(|message| message.subject.to_lowercase().contains(&word));
        found.collect()
    }

    /// How many messages a search finds.
    pub fn count(&self, query: &str) -> usize {
        self.search(query).len()
    }
}

/// Tokens that were given out, and the ledger of all other requests.
#[derive(Default)]
pub struct Workspace {
    /// Requests to the APIs. Those for tokens are not in it: each life of a host gets its own.
    pub ledger: Ledger,
    /// For whom and for what each token is.
    tokens: Mutex<BTreeMap<String, Claims>>,
}

#[derive(Clone, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    scope: String,
    #[serde(default)]
    sub: String,
    iat: i64,
    exp: i64,
}

impl Workspace {
    /// The file of the service account, as Google gives it, for a workspace at this address.
    pub fn account(url: &str) -> String {
        json!({
            "type": "service_account",
            "client_email": ROBOT,
            "private_key": PRIVATE_KEY,
            "token_uri": format!("{url}/token"),
        })
        .to_string()
    }

    /// The server.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/token", post(token))
            .route(
                "/admin/directory/v1/customer/{customer}/domains",
                get(list_domains),
            )
            .route("/admin/directory/v1/users", get(list_users))
            .route("/gmail/v1/users/{user}/messages", get(list_messages))
            .route("/gmail/v1/users/{user}/messages/{id}", get(read_message))
            .with_state(Arc::clone(self))
    }

    /// Checks a request as Google does: a token that it gave, for this scope, on behalf of this user.
    fn admit(
        &self,
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        scope: &str,
        user: Option<&str>,
    ) -> Result<(), Response> {
        self.ledger.enter(method, uri, headers);
        let token = headers.get("authorization");
        let token = token.and_then(|token| token.to_str().ok()).unwrap_or("");
        let token = token.strip_prefix("Bearer ").unwrap_or_default();
        let tokens = self.tokens();
        let Some(claims) = tokens.get(token) else {
            return Err(refusal(401, "UNAUTHENTICATED", "Invalid Credentials"));
        };
        let known: BTreeMap<&str, &str> = SCOPES.into_iter().collect();
        if !claims.scope.split(' ').any(|one| one == known[scope]) {
            let text = "Request had insufficient authentication scopes.";
            return Err(refusal(403, "PERMISSION_DENIED", text));
        }
        if claims.sub != user.unwrap_or(ADMIN) {
            let text = format!("Delegation denied for {}", claims.sub);
            return Err(refusal(403, "PERMISSION_DENIED", &text));
        }
        Ok(())
    }
}

impl Workspace {
    fn tokens(&self) -> MutexGuard<'_, BTreeMap<String, Claims>> {
        // The map is whole at every point where a holder could panic.
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Shared = State<Arc<Workspace>>;

fn refusal(code: u16, status: &str, message: &str) -> Response {
    let body = json!({"error": {"code": code, "message": message, "status": status, "errors": [{"reason": status, "message": message}]}});
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(body)).into_response()
}

/// RFC 7523 as Google does it.
async fn token(State(workspace): Shared, body: Bytes) -> Response {
    let invalid = |text: &str| {
        let body = json!({"error": "invalid_grant", "error_description": text});
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    };
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let grant = form.get("grant_type").map(String::as_str);
    if grant != Some("urn:ietf:params:oauth:grant-type:jwt-bearer") {
        return invalid("unsupported grant type");
    }
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_aud = false;
    let assertion = form.get("assertion").map_or("", String::as_str);
    let claims = DecodingKey::from_rsa_pem(PUBLIC_KEY.as_bytes())
        .and_then(|key| jsonwebtoken::decode::<Claims>(assertion, &key, &validation));
    let Ok(claims) = claims.map(|token| token.claims) else {
        return invalid("Invalid JWT Signature.");
    };
    let known: BTreeSet<&str> = SCOPES.iter().map(|(_, scope)| *scope).collect();
    if claims.iss != ROBOT || !claims.aud.ends_with("/token") || claims.exp - claims.iat > 3_600 {
        return invalid("Invalid JWT: iss, aud or exp");
    }
    if !claims.scope.split(' ').all(|scope| known.contains(scope)) {
        return invalid("a scope was not granted for the domain");
    }
    let mut tokens = workspace.tokens();
    let name = format!("ya29.fake-{}", tokens.len() + 1);
    tokens.insert(name.clone(), claims);
    Json(json!({"access_token": name, "expires_in": 3_599, "token_type": "Bearer"})).into_response()
}

async fn list_domains(
    State(workspace): Shared,
    Path(customer): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = workspace.admit((&method, &uri, &headers), "domains", None) {
        return refused;
    }
    if customer != "my_customer" {
        return refusal(404, "NOT_FOUND", "Domain not found.");
    }
    let domains = DOMAINS.iter().enumerate();
    let domains: Vec<Value> = domains
        .map(|(n, name)| json!({"kind": "admin#directory#domain", "domainName": name, "isPrimary": n == 0, "verified": true}))
        .collect();
    Json(json!({"kind": "admin#directory#domains", "domains": domains})).into_response()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    max_results: Option<usize>,
    page_token: Option<String>,
    domain: Option<String>,
    q: Option<String>,
}

impl Asked {
    /// This page's part of a list, and the token of the next one. A token is good for the list it was given for.
    fn of<'a, T>(&self, list: &'a [T], name: &str) -> Result<(&'a [T], Option<String>), Response> {
        let size = self.max_results.unwrap_or(100).clamp(1, 500);
        let start = match &self.page_token {
            None => 0,
            Some(token) => token
                .strip_prefix(&format!("{name}~"))
                .and_then(|start| start.parse().ok())
                .filter(|start| *start < list.len())
                .ok_or_else(|| refusal(400, "INVALID_ARGUMENT", "Invalid pageToken"))?,
        };
        let end = (start + size).min(list.len());
        let next = (end < list.len()).then(|| format!("{name}~{end}"));
        Ok((&list[start..end], next))
    }
}

async fn list_users(
    State(workspace): Shared,
    Query(page): Query<Asked>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = workspace.admit((&method, &uri, &headers), "users", None) {
        return refused;
    }
    let domain = page.domain.as_deref().unwrap_or_default();
    let Some(number) = DOMAINS.iter().position(|known| *known == domain) else {
        return refusal(404, "NOT_FOUND", "Domain not found.");
    };
    let users = users(number);
    match page.of(&users, domain) {
        Err(refused) => refused,
        Ok((users, next)) => {
            let users: Vec<Value> = users
                .iter()
                .map(|user| json!({"primaryEmail": user.email, "name": {"fullName": user.name}, "suspended": user.suspended}))
                .collect();
            answer(
                json!({"kind": "admin#directory#users", "users": users}),
                next,
            )
        }
    }
}

fn answer(mut body: Value, next: Option<String>) -> Response {
    if let Some(next) = next {
        body["nextPageToken"] = json!(next);
    }
    Json(body).into_response()
}

/// The user of an address.
fn user(email: &str) -> Option<User> {
    let (_, host) = email.split_once('@')?;
    let domain = DOMAINS.iter().position(|known| *known == host)?;
    let mut users = users(domain).into_iter();
    users.find(|user| user.email == email && !user.suspended)
}

async fn list_messages(
    State(workspace): Shared,
    Path(email): Path<String>,
    Query(page): Query<Asked>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = workspace.admit((&method, &uri, &headers), "mail", Some(&email)) {
        return refused;
    }
    let Some(user) = user(&email) else {
        return refusal(400, "FAILED_PRECONDITION", "Mail service not enabled");
    };
    let found = user.search(page.q.as_deref().unwrap_or_default());
    let estimate = found.len();
    match page.of(&found, &email) {
        Err(refused) => refused,
        // Gmail leaves the member out when nothing was found.
        Ok(([], _)) => answer(json!({"resultSizeEstimate": 0}), None),
        Ok((found, next)) => {
            let found = found.iter();
            let messages: Vec<Value> = found
                .map(|message| json!({"id": message.id, "threadId": message.id}))
                .collect();
            answer(
                json!({"messages": messages, "resultSizeEstimate": estimate}),
                next,
            )
        }
    }
}

async fn read_message(
    State(workspace): Shared,
    Path((email, id)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = workspace.admit((&method, &uri, &headers), "mail", Some(&email)) {
        return refused;
    }
    let user = user(&email);
    let mut messages = user.iter().flat_map(|user| &user.messages);
    let Some(message) = messages.find(|message| message.id == id) else {
        return refusal(404, "NOT_FOUND", "Requested entity was not found.");
    };
    // Only the headers that were asked for, as the format `metadata` says.
    let query = query.unwrap_or_default();
    let wanted: Vec<String> = url::form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "metadataHeaders")
        .map(|(_, value)| value.into_owned())
        .collect();
    let headers: Vec<Value> = [
        ("Subject", &message.subject),
        ("From", &message.from),
        ("Date", &message.date),
    ]
    .into_iter()
    .filter(|(name, _)| wanted.iter().any(|one| one == name))
    .map(|(name, value)| json!({"name": name, "value": value}))
    .collect();
    Json(json!({"id": id, "threadId": id, "snippet": message.snippet, "payload": {"headers": headers}}))
        .into_response()
}
