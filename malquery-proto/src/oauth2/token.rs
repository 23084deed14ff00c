use std::borrow::Cow;
use std::time::Duration;

use zeroize::Zeroizing;

use super::check;
use crate::cloud::BaseUrl;
use crate::credentials::{BearerToken, Credentials};
use crate::endpoint::Endpoint;
use crate::error::{ApiError, DecodeError, ResponseError};
use crate::operation::MAX_TOKEN_BODY;
use crate::reply::{Reply, ResponseHead};
use crate::request::{BuildError, RequestParts};
use crate::types::read::without_mark;

/// Requests a bearer token.
///
/// `POST /oauth2/token` (operation id `oauth2AccessToken`), with a form that contains `client_id`,
/// `client_secret` and, for a Flight Control child, `member_cid`. Costs no quota. Each IP address
/// may send 300 token requests per minute.
///
/// Statuses: 201 with the token; 308 if the account belongs to another commercial cloud; 400 or 401
/// for wrong credentials; 403 for a wrong member CID or an IP address that is not on the allowlist;
/// 429; 500.
#[derive(Debug, Clone, Copy)]
pub struct GetToken<'a> {
    credentials: &'a Credentials,
}

/// A bearer token and its lifetime.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AccessToken {
    /// The token.
    pub bearer: BearerToken,
    /// The lifetime of the token, which starts when the token is issued. This is 1,799 seconds if
    /// the reply does not contain a valid lifetime.
    pub expires_in: Duration,
}

impl<'a> GetToken<'a> {
    /// The method and path, and whether the request may be sent again.
    pub const ENDPOINT: Endpoint = Endpoint::post("oauth2AccessToken", "/oauth2/token")
        .unscoped()
        .safe();

    /// Creates the operation for these credentials.
    pub fn new(credentials: &'a Credentials) -> Self {
        Self { credentials }
    }

    /// Builds the request. Its body contains the secret.
    ///
    /// # Errors
    /// Fails if the client id or secret is empty, or if the base URL is too long.
    pub fn request(&self, base: &BaseUrl) -> Result<http::Request<Vec<u8>>, BuildError> {
        check(self.credentials)?;
        let mut parts = RequestParts::new(base, &Self::ENDPOINT);
        let member_cid = self
            .credentials
            .member_cid
            .as_ref()
            .map(|cid| ("member_cid", cid.as_str()));
        parts.form(
            [
                ("client_id", &*self.credentials.client_id),
                ("client_secret", self.credentials.client_secret.expose()),
            ]
            .into_iter()
            .chain(member_cid),
        );
        parts.finish()
    }

    /// Parses the reply.
    ///
    /// # Errors
    /// Returns [`ResponseError::Api`] for any status other than 2xx, and [`ResponseError::Decode`]
    /// for a body that is larger than 64 KiB or contains no valid token.
    pub fn response(
        &self,
        head: ResponseHead<'_>,
        body: &[u8],
    ) -> Result<Reply<AccessToken>, ResponseError> {
        if !head.status.is_success() {
            let error = ApiError::new(&Self::ENDPOINT, head, body)
                .without_body()
                .masked(&self.credentials.needles());
            return Err(ResponseError::Api(error.into()));
        }
        let refuse = |why: &str| {
            ResponseError::Decode(Box::new(DecodeError::secret(&Self::ENDPOINT, head, why)))
        };
        if body.len() as u64 > MAX_TOKEN_BODY {
            return Err(refuse("it is larger than 64 KiB"));
        }
        let reply = match String::from_utf8_lossy(without_mark(body)) {
            Cow::Borrowed(text) => serde_json::from_str::<TokenReply>(text),
            Cow::Owned(text) => serde_json::from_str(&Zeroizing::new(text)),
        };
        // An error message from serde_json could quote the token.
        let reply = reply.map_err(|_| refuse("it is not a valid token reply"))?;
        let token = reply
            .access_token
            .ok_or_else(|| refuse("it has no `access_token`"))?;
        let bearer = BearerToken::new(token.as_str()).map_err(|why| refuse(&why.to_string()))?;
        let expires_in = seconds(&reply.expires_in).unwrap_or(LIFETIME);
        Ok(Reply::new(head, None, AccessToken { bearer, expires_in }))
    }
}

const LIFETIME: Duration = Duration::from_secs(1799);

/// The body of a token reply. Dropping it wipes the token from memory.
#[derive(serde::Deserialize)]
struct TokenReply {
    access_token: Option<Zeroizing<String>>,
    #[serde(default)]
    expires_in: serde_json::Value,
}

/// Parses a number of seconds, which may be a decimal or a string.
fn seconds(value: &serde_json::Value) -> Option<Duration> {
    let seconds = value
        .as_f64()
        .or_else(|| value.as_str()?.trim().parse().ok())?;
    Duration::try_from_secs_f64(seconds).ok()
}
