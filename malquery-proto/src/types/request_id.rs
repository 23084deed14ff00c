use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Error};
use serde_json::Value;

use super::ParseError;
use super::lenient::{Field, Read, kept, text_item};

/// The id of a job: a hunt, an exact search or a multi-download.
///
/// The reply to a submission contains it as `meta.reqid`. Request ids look like UUIDs, but some are
/// not valid according to RFC 4122. This type therefore accepts any text of 1 to 200 bytes without
/// whitespace or control characters.
///
/// ```
/// use malquery_proto::types::RequestId;
///
/// let id: RequestId = "3c9d5b1e-4a2f-6ea1-5f4f-0123456789ab".parse()?;
/// assert_eq!(id.as_str().len(), 36);
/// assert!("two words".parse::<RequestId>().is_err());
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Box<str>);

impl RequestId {
    /// Returns the id as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const WHAT: &str = "a request id";

impl FromStr for RequestId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::new(WHAT, "it is empty"));
        }
        if text.len() > 200 {
            return Err(ParseError::new(
                WHAT,
                format!("it is {} bytes long; the maximum is 200", text.len()),
            ));
        }
        match text
            .char_indices()
            .find(|(_, c)| c.is_whitespace() || c.is_control())
        {
            Some((position, _)) => Err(ParseError::at(WHAT, text, position, "is not allowed")),
            None => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({})", self.0)
    }
}

text_item!(RequestId, |_, _| true, as_str);

/// A required field: without its request id, a job cannot be polled.
impl Field for RequestId {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Read<Self>, D::Error> {
        let received = kept(deserializer)?;
        match &received {
            Value::String(text) => text.parse().map(|value| Read { value, keep: None }),
            Value::Number(number) => number.to_string().parse().map(|value| Read {
                value,
                keep: Some(received.clone()),
            }),
            _ => Err(ParseError::new(WHAT, "it is not a string")),
        }
        .map_err(D::Error::custom)
    }

    fn missing<E: Error>(name: &'static str) -> Result<Self, E> {
        Err(E::missing_field(name))
    }

    fn is_empty(&self) -> bool {
        false
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_any_single_word() {
        for id in [
            "3c9d5b1e-4a2f-6ea1-5f4f-0123456789ab",
            "x",
            "käse",
            &"a".repeat(200),
        ] {
            assert_eq!(id.parse::<RequestId>().unwrap().as_str(), id);
        }
        let message = |text: &str| text.parse::<RequestId>().unwrap_err().to_string();
        assert_eq!(message(""), "not a request id: it is empty");
        assert_eq!(
            message("a b"),
            "not a request id: ' ' at position 1 is not allowed"
        );
        assert_eq!(
            message("a\r\n"),
            "not a request id: '\\r' at position 1 is not allowed"
        );
        assert_eq!(
            message(&"a".repeat(201)),
            "not a request id: it is 201 bytes long; the maximum is 200"
        );
    }
}
