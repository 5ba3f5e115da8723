//! Access tokens of a service account, with domain impersonation: signed assertions, and a cache.
//!
//! A token is reused until 5 minutes before it expires; of many that wait for the same token one asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::{Deserialize, Serialize};
use tasker_core::Timestamp;
use tasker_core::service::{ServiceCall, ServiceError, ServiceErrorType};
use url::Url;

use crate::Secret;
use crate::http_client::{HttpClient, HttpRequest};

/// A token is renewed this long before it expires.
const RENEW_BEFORE_MS: i64 = 300_000;
/// Who an assertion is for, wherever it is sent: what Google's own clients say.
const AUDIENCE: &str = "https://oauth2.googleapis.com/token";
/// Entries that the cache holds before it forgets what has expired.
const MANY: usize = 10_000;

/// The JSON that Google gives for a service account.
#[derive(Deserialize)]
struct AccountFile {
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
    #[serde(default = "token_uri")]
    token_uri: String,
}

fn token_uri() -> String {
    AUDIENCE.to_owned()
}

/// A service account. Its key does not print.
pub(super) struct Account {
    pub(super) email: String,
    key: EncodingKey,
    key_id: Option<String>,
    token_uri: Url,
}

impl Account {
    /// # Errors
    /// `CONFIGURATION_ERROR` that shows nothing of the text.
    pub(super) fn parse(json: &Secret) -> Result<Self, ServiceError> {
        let wrong = || {
            ServiceError::configuration(
                "GAPI_KEY is not the JSON of a service account; put the whole file that Google gave into it, with client_email and private_key",
            )
        };
        let file: AccountFile = serde_json::from_str(json.expose()).map_err(|_| wrong())?;
        Ok(Self {
            email: file.client_email,
            key: EncodingKey::from_rsa_pem(file.private_key.as_bytes()).map_err(|_| wrong())?,
            key_id: file.private_key_id,
            token_uri: Url::parse(&file.token_uri).map_err(|_| wrong())?,
        })
    }

    fn assertion(
        &self,
        scope: &str,
        subject: Option<&str>,
        now: Timestamp,
    ) -> Result<String, ServiceError> {
        #[derive(Serialize)]
        struct Claims<'a> {
            iss: &'a str,
            scope: &'a str,
            aud: &'a str,
            iat: i64,
            exp: i64,
            #[serde(skip_serializing_if = "Option::is_none")]
            sub: Option<&'a str>,
        }
        let issued = now.as_millis().div_euclid(1_000);
        let claims = Claims {
            iss: &self.email,
            scope,
            aud: AUDIENCE,
            iat: issued,
            exp: issued + 3_600,
            sub: subject,
        };
        let header = Header {
            kid: self.key_id.clone(),
            ..Header::new(Algorithm::RS256)
        };
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(|_| {
            ServiceError::configuration("the private key in GAPI_KEY does not sign; get a new key")
        })
    }
}

#[derive(Clone)]
struct Token {
    secret: Secret,
    expires: Timestamp,
}

type Place = Arc<tokio::sync::Mutex<Option<Token>>>;

/// Tokens by account, scope and user.
#[derive(Default)]
pub(super) struct Tokens {
    places: Mutex<BTreeMap<(String, String, String), Place>>,
}

/// What is known of a token; the token itself is not.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct TokenInfo {
    pub(super) scope: String,
    pub(super) user: String,
    pub(super) expires: String,
    pub(super) valid: bool,
}

impl Tokens {
    /// A token for this scope and user.
    pub(super) async fn get(
        &self,
        client: &HttpClient,
        call: &ServiceCall,
        account: &Account,
        scope: &str,
        subject: Option<&str>,
    ) -> Result<Secret, ServiceError> {
        let place = self.place(account, scope, subject);
        let mut token = place.lock().await;
        let now = (client.clock())();
        if let Some(token) = &*token
            && token.expires.millis_since(now) > RENEW_BEFORE_MS
        {
            return Ok(token.secret.clone());
        }
        let fresh = ask(client, call, account, scope, subject, now).await?;
        let secret = fresh.secret.clone();
        *token = Some(fresh);
        Ok(secret)
    }

    /// Forgets a token that was refused, unless another one took its place meanwhile.
    pub(super) async fn refused(
        &self,
        account: &Account,
        scope: &str,
        subject: Option<&str>,
        secret: &Secret,
    ) {
        let place = self.place(account, scope, subject);
        let mut token = place.lock().await;
        if token.as_ref().is_some_and(|token| token.secret == *secret) {
            *token = None;
        }
    }

    /// Forgets all tokens, or those of a scope; how many.
    pub(super) fn clear(&self, scope: Option<&str>) -> usize {
        let mut places = self.lock();
        let before = places.len();
        places.retain(|(_, known, _), _| scope.is_some_and(|scope| scope != known));
        before - places.len()
    }

    pub(super) fn list(&self, now: Timestamp) -> Vec<TokenInfo> {
        let places = self.lock();
        let known = places.iter().filter_map(|((_, scope, user), place)| {
            let token = place.try_lock().ok()?;
            let token = token.as_ref()?;
            Some(TokenInfo {
                scope: scope.clone(),
                user: user.clone(),
                expires: token.expires.to_string(),
                valid: token.expires.millis_since(now) > RENEW_BEFORE_MS,
            })
        });
        known.collect()
    }

    fn place(&self, account: &Account, scope: &str, subject: Option<&str>) -> Place {
        let mut places = self.lock();
        if places.len() >= MANY {
            // A place that somebody waits at is held twice.
            places.retain(|_, place| Arc::strong_count(place) > 1);
        }
        let user = subject.unwrap_or_default().to_owned();
        let key = (account.email.clone(), scope.to_owned(), user);
        Arc::clone(places.entry(key).or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String, String), Place>> {
        // The map is whole at every point where a holder could panic.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(
    client: &HttpClient,
    call: &ServiceCall,
    account: &Account,
    scope: &str,
    subject: Option<&str>,
    now: Timestamp,
) -> Result<Token, ServiceError> {
    #[derive(Deserialize)]
    struct Granted {
        access_token: String,
        #[serde(default)]
        expires_in: i64,
    }
    #[derive(Default, Deserialize)]
    struct Refused {
        error: Option<String>,
        error_description: Option<String>,
    }
    let assertion = Secret::new(account.assertion(scope, subject, now)?);
    let what = "gapi token";
    let mut request = HttpRequest::new(what, Method::POST, account.token_uri.clone());
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
        .append_pair("assertion", assertion.expose())
        .finish();
    request.headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    request.body = Some(form.into_bytes());
    // Two tokens do no harm.
    request.repeatable = true;
    request.secrets.push(assertion);
    let answer = client.send(call, &request).await?;
    if answer.status.is_success() {
        let granted: Granted = serde_json::from_slice(&answer.body)
            .map_err(|_| request.error(ServiceErrorType::External, "Google answered no token"))?;
        return Ok(Token {
            secret: Secret::new(granted.access_token),
            expires: now.plus_millis(granted.expires_in.saturating_mul(1_000)),
        });
    }
    let refused: Refused = serde_json::from_slice(&answer.body).unwrap_or_default();
    let why = refused.error_description.or_else(|| refused.error.clone());
    let why = why.unwrap_or_else(|| answer.beginning());
    let user = subject.map_or_else(String::new, |user| format!(" as {user}"));
    let text = format!(
        "Google gave {} no token for {scope}{user}: {why}; look at the scopes that the account was granted for the whole domain",
        account.email
    );
    let mut error = answer.error(&request, refused.error, &text, None);
    if error.kind == ServiceErrorType::Validation {
        error.kind = ServiceErrorType::Authentication;
    }
    Err(error)
}
