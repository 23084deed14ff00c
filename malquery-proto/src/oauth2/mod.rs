//! The two operations on tokens.
//!
//! The id and secret of an API client are exchanged for a bearer token that lives for 30 minutes.
//! [`Auth`](crate::flow::Auth) does this when a token is needed.

mod revoke;
mod token;

use crate::credentials::Credentials;
use crate::request::BuildError;

pub use revoke::Revoke;
pub use token::{AccessToken, GetToken};

/// The operation id of the token endpoint.
pub(crate) const TOKEN_ID: &str = "oauth2AccessToken";

/// Refuses credentials that cannot be right.
fn check(credentials: &Credentials) -> Result<(), BuildError> {
    if credentials.client_id.is_empty() {
        Err(BuildError::EmptyCredential("client id"))
    } else if credentials.client_secret.expose().is_empty() {
        Err(BuildError::EmptyCredential("client secret"))
    } else {
        Ok(())
    }
}
