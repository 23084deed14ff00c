//! The credentials of an API client, and the bearer token that the service issues for them.

use std::fmt;
use std::str::FromStr;

use http::HeaderValue;

use crate::needles::Needles;
use crate::secret::Secret;
use crate::types::ParseError;
use crate::types::text::text_value;

/// The credentials of an API client. Create them in the Falcon console under "API clients and
/// keys".
///
/// `Debug` hides the secret. The secret is wiped from memory on drop.
///
/// ```
/// use malquery_proto::Credentials;
///
/// let credentials = Credentials::new("the id", "the secret").member_cid("0123456789ABCDEF0123456789ABCDEF-4F".parse()?);
/// assert!(!format!("{credentials:?}").contains("the secret"));
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Clone)]
pub struct Credentials {
    pub(crate) client_id: String,
    pub(crate) client_secret: Secret,
    pub(crate) member_cid: Option<MemberCid>,
}

impl Credentials {
    /// Creates credentials from the client id and secret that the Falcon console shows.
    pub fn new(client_id: impl Into<String>, client_secret: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
            client_secret: Secret::new(client_secret),
            member_cid: None,
        }
    }

    /// Sets the Flight Control child to act for. The credentials must belong to its parent.
    pub fn member_cid(mut self, member_cid: MemberCid) -> Self {
        self.member_cid = Some(member_cid);
        self
    }

    /// Returns the set of secrets to mask, which contains only the client secret.
    pub(crate) fn needles(&self) -> Needles {
        Needles::new([self.client_secret.expose()])
    }

    /// Returns the client id, which is not secret.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("client_id", &self.client_id)
            .field("client_secret", &self.client_secret)
            .field("member_cid", &self.member_cid)
            .finish()
    }
}

/// The customer id (CID) of a Flight Control child.
///
/// Parsing removes surrounding whitespace and the checksum (`-XX`) that follows a 32-character CID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MemberCid(Box<str>);

impl MemberCid {
    /// Returns the customer id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

text_value!(MemberCid, as_str);

impl FromStr for MemberCid {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ParseError::new("a member CID", "it is empty"));
        }
        let cid = match text.rsplit_once('-') {
            Some((cid, checksum)) if checksum.len() == 2 && cid.len() == 32 => cid,
            _ => text,
        };
        Ok(Self(cid.into()))
    }
}

impl fmt::Display for MemberCid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A bearer token. `Debug` hides it, and it is wiped from memory on drop.
#[derive(Debug, Clone)]
pub struct BearerToken(Secret);

impl BearerToken {
    /// Wraps a token that was obtained elsewhere.
    ///
    /// # Errors
    /// Fails if the token is empty or contains anything other than visible ASCII characters. The
    /// error does not show the token.
    pub fn new(token: impl Into<String>) -> Result<Self, ParseError> {
        let token = Secret::new(token);
        let why = if token.expose().is_empty() {
            "it is empty"
        } else if !token.expose().bytes().all(|b| b.is_ascii_graphic()) {
            "it must contain only visible ASCII characters"
        } else {
            return Ok(Self(token));
        };
        Err(ParseError::new("a bearer token", why))
    }

    /// Returns the value of the `Authorization` header. Its `Debug` output hides the token.
    pub(crate) fn header(&self) -> HeaderValue {
        sensitive("Bearer ", self.0.expose())
    }

    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }
}

pub(crate) fn sensitive(scheme: &str, value: &str) -> HeaderValue {
    let text = zeroize::Zeroizing::new(format!("{scheme}{value}"));
    // Tokens and base64 are visible ASCII, so this cannot fail. If it did, the service would reject
    // the empty header with a 401, and nothing would leak.
    let mut header = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
    header.set_sensitive(true);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_member_cid_is_stripped() {
        let cid = "0123456789ABCDEF0123456789ABCDEF";
        assert_eq!(
            format!("{cid}-4F")
                .parse::<MemberCid>()
                .unwrap()
                .to_string(),
            cid
        );
        assert_eq!(cid.parse::<MemberCid>().unwrap().to_string(), cid);
        assert_eq!(
            "another-format".parse::<MemberCid>().unwrap().to_string(),
            "another-format"
        );
        assert!(" ".parse::<MemberCid>().is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials::new("an-id", "p4ssw0rd");
        assert_eq!(credentials.client_id(), "an-id");
        let token = BearerToken::new("t0ken").unwrap();
        let shown = format!(
            "{credentials:?} {credentials:#?} {token:?} {:?}",
            token.header()
        );
        assert!(
            shown.contains("an-id") && !shown.contains("p4ssw0rd") && !shown.contains("t0ken"),
            "{shown}"
        );
        let error = BearerToken::new("t0ken\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "not a bearer token: it must contain only visible ASCII characters"
        );
    }
}
