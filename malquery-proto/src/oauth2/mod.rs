//! The two token operations: [`GetToken`] and [`Revoke`].
//!
//! The service issues a bearer token for the id and secret of an API client. A token is valid for
//! about 30 minutes. [`Auth`](crate::flow::Auth) requests tokens when they are needed.

mod revoke;
mod token;

use crate::credentials::Credentials;
use crate::request::BuildError;

pub use revoke::Revoke;
pub use token::{AccessToken, GetToken};

/// Fails if the client id or the secret is empty.
fn check(credentials: &Credentials) -> Result<(), BuildError> {
    if credentials.client_id.is_empty() {
        Err(BuildError::EmptyCredential("client id"))
    } else if credentials.client_secret.expose().is_empty() {
        Err(BuildError::EmptyCredential("client secret"))
    } else {
        Ok(())
    }
}
