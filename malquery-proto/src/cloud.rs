//! CrowdStrike clouds, and base URLs for requests.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

use crate::types::ParseError;
use crate::types::text::text_value;

/// A CrowdStrike cloud. Each account belongs to exactly one.
///
/// Parsing ignores case, dashes, underscores and surrounding whitespace. It also accepts `gov1`
/// and `gov2` for the government clouds.
///
/// ```
/// use malquery_proto::Cloud;
///
/// assert_eq!("US2".parse::<Cloud>()?, Cloud::Us2);
/// assert_eq!("gov1".parse::<Cloud>()?, Cloud::UsGov1);
/// assert_eq!(Cloud::Eu1.to_string(), "eu-1");
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cloud {
    /// The commercial cloud US-1.
    Us1,
    /// The commercial cloud US-2.
    Us2,
    /// The commercial cloud US-3.
    Us3,
    /// The commercial cloud EU-1.
    Eu1,
    /// The government cloud US-GOV-1.
    UsGov1,
    /// The government cloud US-GOV-2.
    UsGov2,
}

impl Cloud {
    /// All clouds.
    pub const ALL: [Self; 6] = [
        Self::Us1,
        Self::Us2,
        Self::Us3,
        Self::Eu1,
        Self::UsGov1,
        Self::UsGov2,
    ];

    /// Returns the name in lowercase, such as `us-1`. The `X-Cs-Region` header uses the same names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Us1 => "us-1",
            Self::Us2 => "us-2",
            Self::Us3 => "us-3",
            Self::Eu1 => "eu-1",
            Self::UsGov1 => "us-gov-1",
            Self::UsGov2 => "us-gov-2",
        }
    }

    /// Returns whether this is a government cloud.
    pub const fn is_government(self) -> bool {
        matches!(self, Self::UsGov1 | Self::UsGov2)
    }

    const fn host(self) -> &'static str {
        match self {
            Self::Us1 => "api.crowdstrike.com",
            Self::Us2 => "api.us-2.crowdstrike.com",
            Self::Us3 => "api.us-3.crowdstrike.com",
            Self::Eu1 => "api.eu-1.crowdstrike.com",
            Self::UsGov1 => "api.laggar.gcw.crowdstrike.com",
            Self::UsGov2 => "api.us-gov-2.crowdstrike.mil",
        }
    }

    /// Returns the cloud whose API has this host name, if any.
    pub(crate) fn of_host(host: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|cloud| cloud.host().eq_ignore_ascii_case(host))
    }
}

impl FromStr for Cloud {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let word = text.trim().replace(['-', '_'], "").to_ascii_lowercase();
        let word = if word.starts_with("gov") {
            format!("us{word}")
        } else {
            word
        };
        Self::ALL
            .into_iter()
            .find(|cloud| cloud.name().replace('-', "") == word)
            .ok_or_else(|| {
                ParseError::new(
                    "a cloud",
                    format!(
                        "{text:?} is unknown; use us-1, us-2, us-3, eu-1, us-gov-1 or us-gov-2"
                    ),
                )
            })
    }
}

text_value!(Cloud, name);

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The base URL for requests: the URL of a cloud, or a custom URL such as a gateway's.
///
/// The URL must use https, or plain http for `localhost` or a loopback address. A path in the URL
/// becomes a prefix of every request path.
///
/// ```
/// use malquery_proto::{BaseUrl, Cloud};
///
/// assert_eq!(BaseUrl::from(Cloud::Us1).as_str(), "https://api.crowdstrike.com");
/// assert_eq!("http://127.0.0.1:8080/falcon/".parse::<BaseUrl>()?.as_str(), "http://127.0.0.1:8080/falcon");
/// assert!("http://api.crowdstrike.com".parse::<BaseUrl>().is_err());
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl(Box<str>);

const WHAT: &str = "a base URL";

impl BaseUrl {
    /// Returns the URL, which does not end with a slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the cloud that has this URL, or `None` for a custom URL.
    pub fn cloud(&self) -> Option<Cloud> {
        Cloud::of_host(self.0.strip_prefix("https://")?)
    }
}

text_value!(BaseUrl, as_str);

impl From<Cloud> for BaseUrl {
    fn from(cloud: Cloud) -> Self {
        Self(format!("https://{}", cloud.host()).into())
    }
}

impl FromStr for BaseUrl {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let url = Url::parse(text.trim()).map_err(|error| {
            ParseError::new(
                WHAT,
                format!("{error}; use a URL such as https://api.crowdstrike.com"),
            )
        })?;
        Self::try_from(url)
    }
}

impl TryFrom<Url> for BaseUrl {
    type Error = ParseError;

    fn try_from(url: Url) -> Result<Self, ParseError> {
        let refuse = |why: &'static str| Err(ParseError::new(WHAT, why));
        if url.host().is_none() || !matches!(url.scheme(), "https" | "http") {
            return refuse(
                "it must start with https:// and a host, or with http:// and a loopback address",
            );
        }
        if url.scheme() == "http" && !is_loopback(&url) {
            return refuse(
                "it must use https; plain http would expose the credentials to the network",
            );
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("it must not contain a user name or password");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refuse("it must not contain a query or fragment");
        }
        let text = url.as_str().trim_end_matches('/');
        // The `http` crate rejects some hosts that the `url` crate accepts.
        match http::Uri::try_from(text) {
            Ok(_) => Ok(Self(text.into())),
            Err(error) => Err(ParseError::new(WHAT, error.to_string())),
        }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests;
