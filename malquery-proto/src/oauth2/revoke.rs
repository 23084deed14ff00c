use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header;
use zeroize::Zeroizing;

use super::check;
use crate::cloud::BaseUrl;
use crate::credentials::{BearerToken, Credentials, sensitive};
use crate::endpoint::Endpoint;
use crate::error::{ApiError, ResponseError};
use crate::reply::{Reply, ResponseHead};
use crate::request::{BuildError, RequestParts};

/// Revokes a bearer token.
///
/// `POST /oauth2/revoke` (operation id `oauth2RevokeToken`), with the token in a form and the
/// credentials as HTTP Basic authentication. Costs no quota.
///
/// Statuses: 200, 400, 401, 403, 429, 500.
#[derive(Debug, Clone, Copy)]
pub struct Revoke<'a> {
    credentials: &'a Credentials,
    token: &'a BearerToken,
}

impl<'a> Revoke<'a> {
    /// The method and path, and whether the request may be sent again.
    pub const ENDPOINT: Endpoint = Endpoint::post("oauth2RevokeToken", "/oauth2/revoke")
        .unscoped()
        .safe();

    /// Creates the operation for a token that was issued for these credentials.
    pub fn new(credentials: &'a Credentials, token: &'a BearerToken) -> Self {
        Self { credentials, token }
    }

    /// Builds the request, which contains the token and the secret.
    ///
    /// # Errors
    /// Fails if the client id or secret is empty, or if the base URL is too long.
    pub fn request(&self, base: &BaseUrl) -> Result<http::Request<Vec<u8>>, BuildError> {
        check(self.credentials)?;
        let mut parts = RequestParts::new(base, &Self::ENDPOINT);
        let pair = Zeroizing::new(format!(
            "{}:{}",
            self.credentials.client_id,
            self.credentials.client_secret.expose()
        ));
        let basic = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        parts
            .headers
            .insert(header::AUTHORIZATION, sensitive("Basic ", &basic));
        parts.form([("token", self.token.expose())]);
        parts.finish()
    }

    /// Checks the reply.
    ///
    /// # Errors
    /// Returns [`ResponseError::Api`] for any status other than 2xx.
    pub fn response(
        &self,
        head: ResponseHead<'_>,
        body: &[u8],
    ) -> Result<Reply<()>, ResponseError> {
        // The body of a successful reply is not needed, and may be empty.
        if head.status.is_success() {
            Ok(Reply::new(head, None, ()))
        } else {
            let mut needles = self.credentials.needles();
            needles.add(self.token.expose());
            let error = ApiError::new(&Self::ENDPOINT, head, body)
                .without_body()
                .masked(&needles);
            Err(ResponseError::Api(error.into()))
        }
    }
}
