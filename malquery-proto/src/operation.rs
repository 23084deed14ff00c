//! The traits that define an operation.

use std::fmt;

use http::{StatusCode, header};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::cloud::BaseUrl;
use crate::credentials::BearerToken;
use crate::endpoint::{Cost, Endpoint};
use crate::error::{ApiError, DecodeError, Fault, ResponseError};
use crate::reply::{Reply, ResponseHead};
use crate::request::{BuildError, RequestParts};
use crate::stream::StreamCheck;
use crate::types::lenient::Item;
use crate::types::read::read_reply;
use crate::types::{Envelope, ReplyMeta};

/// The maximum number of bytes to read from the body of an error reply.
pub const MAX_ERROR_BODY: u64 = 64 * 1024;

/// The maximum size in bytes of the reply to a token request.
pub(crate) const MAX_TOKEN_BODY: u64 = 64 * 1024;

/// The maximum size in bytes of a JSON reply. 100,000 results take about 30 MB.
pub const MAX_JSON_BODY: u64 = 256 * 1024 * 1024;

/// An operation of the API: a value that can be encoded as a request.
///
/// [`operations`](crate::operations) contains the nine operations of MalQuery. Implement this trait
/// for an operation that the crate does not have.
///
/// ```
/// use malquery_proto::request::BuildError;
/// use malquery_proto::endpoint::Endpoint;
/// use malquery_proto::operation::{JsonOperation, Operation};
/// use malquery_proto::request::RequestParts;
/// use malquery_proto::types::{Json, PlainMeta};
///
/// /// An operation that this crate does not have. `Client::call` accepts it.
/// struct Rules {
///     limit: u32,
/// }
///
/// impl Operation for Rules {
///     const ENDPOINT: Endpoint = Endpoint::get("GetRules", "/malquery/entities/rules/v1");
///
///     fn encode(&self, out: &mut RequestParts) -> Result<(), BuildError> {
///         out.query("limit", self.limit);
///         Ok(())
///     }
/// }
///
/// impl JsonOperation for Rules {
///     type Meta = PlainMeta;
///     type Resource = Json;
/// }
/// # use malquery_proto::credentials::BearerToken;
/// # let request = Rules { limit: 5 }.request(&malquery_proto::Cloud::Us1.into(), &BearerToken::new("t").unwrap()).unwrap();
/// # assert!(request.uri().to_string().ends_with("/malquery/entities/rules/v1?limit=5"));
/// ```
pub trait Operation {
    /// The method, path and scope, and whether the request may be sent again.
    const ENDPOINT: Endpoint;

    /// Adds the query or the body, if any, to the request.
    ///
    /// # Errors
    /// Fails if the request is known to be invalid, for example if a search has no patterns.
    fn encode(&self, out: &mut RequestParts) -> Result<(), BuildError>;

    /// Returns the documented cost, counted against the monthly quotas. The default is no cost.
    fn cost(&self) -> Cost {
        Cost::default()
    }

    /// Builds the complete request, including the `Authorization` header.
    ///
    /// # Errors
    /// Returns any error from [`Operation::encode`], and [`BuildError::UrlTooLong`] if the URL has
    /// [`MAX_URL`](crate::request::MAX_URL) bytes or more. Also fails if the URL is not valid.
    fn request(
        &self,
        base: &BaseUrl,
        bearer: &BearerToken,
    ) -> Result<http::Request<Vec<u8>>, BuildError> {
        let mut request = unsigned(self, base)?;
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, bearer.header());
        Ok(request)
    }

    /// Parses an error reply. The caller may truncate the body to [`MAX_ERROR_BODY`] bytes. If a
    /// JSON body is truncated, its errors are lost.
    fn error(&self, head: ResponseHead<'_>, body: &[u8]) -> ApiError {
        ApiError::new(&Self::ENDPOINT, head, body)
    }
}

/// Builds the request without a token, so that an invalid request fails before a token request.
pub(crate) fn unsigned<O: Operation + ?Sized>(
    operation: &O,
    base: &BaseUrl,
) -> Result<http::Request<Vec<u8>>, BuildError> {
    let mut parts = RequestParts::new(base, &O::ENDPOINT);
    operation.encode(&mut parts)?;
    parts.finish()
}

/// An operation whose reply is a JSON document.
pub trait JsonOperation: Operation {
    /// The type of `meta`, such as [`PlainMeta`]. Other crates cannot implement [`ReplyMeta`].
    ///
    /// [`PlainMeta`]: crate::types::PlainMeta
    type Meta: ReplyMeta;
    /// The type of a result, such as [`Sample`](crate::types::Sample), or
    /// [`Json`](crate::types::Json) for any JSON value. Other crates cannot define their own result
    /// types.
    type Resource: Item;

    /// Fails, with the reason, if the reply does not seem to belong to this request.
    #[doc(hidden)]
    fn accept(&self, _: &Envelope<Self::Meta, Self::Resource>) -> Result<(), String> {
        Ok(())
    }

    /// Parses the reply.
    ///
    /// # Errors
    /// Returns [`ResponseError::Api`] for any status other than 2xx, and for a body that has errors
    /// but cannot be parsed, for example because it lacks the request id of the job. Returns
    /// [`ResponseError::Decode`] for any other reply that cannot be used. Otherwise, the errors in
    /// the body are in [`Envelope::errors`].
    fn response(
        &self,
        head: ResponseHead<'_>,
        body: &[u8],
    ) -> Result<JsonReply<Self>, ResponseError> {
        let output: Envelope<Self::Meta, Self::Resource> = read_json(&Self::ENDPOINT, head, body)?;
        let refuse = |why: &str| {
            let error = DecodeError::new(Fault::Foreign, &Self::ENDPOINT, head, body, why);
            Err(ResponseError::Decode(error.into()))
        };
        // A stale connection may deliver a reply to another request, such as a token reply.
        if output.resources.is_empty() && output.errors.is_empty() && !has_member(body) {
            return refuse("it has no `meta`, `resources` or `errors`");
        }
        if let Err(why) = self.accept(&output) {
            return refuse(&why);
        }
        let trace_id = output.meta.trace_id().map(Into::into);
        Ok(Reply::new(head, trace_id, output))
    }
}

/// Returns whether a document has a `meta`, `resources` or `errors` that is not `null`.
fn has_member(body: &[u8]) -> bool {
    read_reply(body).is_ok_and(|HasMember(found)| found)
}

/// The result of [`has_member`]. Parsing keeps no members, because there may be millions.
struct HasMember(bool);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Member {
    Meta,
    Resources,
    Errors,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for HasMember {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = HasMember;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HasMember, A::Error> {
                let mut found = false;
                while let Some(member) = map.next_key()? {
                    let value = map.next_value::<Option<IgnoredAny>>()?;
                    found |= value.is_some() && !matches!(member, Member::Other);
                }
                Ok(HasMember(found))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// The reply to a [`JsonOperation`].
pub type JsonReply<O> = Reply<Envelope<<O as JsonOperation>::Meta, <O as JsonOperation>::Resource>>;

/// An operation whose reply is a file: a sample, or an archive of samples.
pub trait StreamOperation: Operation {
    /// Returns the check for the body of a successful reply with this head.
    fn check(&self, head: ResponseHead<'_>) -> StreamCheck;

    /// Returns the reply with the check for its body, or `None` if the body is not a file. In that
    /// case, read the body and pass it to [`Operation::error`]. Only the status determines whether
    /// the body is a file, because a sample may look like anything, even an error.
    fn response(&self, head: ResponseHead<'_>) -> Option<Reply<StreamCheck>> {
        has_file(head.status).then(|| Reply::new(head, None, self.check(head)))
    }
}

/// Returns whether the body of a reply with this status is a whole file: true for every 2xx except
/// 202 (not ready), 204 and 205 (no content), and 206 (part of a file).
pub(crate) fn has_file(status: StatusCode) -> bool {
    status.is_success() && !matches!(status.as_u16(), 202 | 204..=206)
}

/// Checks the status of a reply, and parses its body as JSON.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(
    endpoint: &Endpoint,
    head: ResponseHead<'_>,
    body: &[u8],
) -> Result<T, ResponseError> {
    if !head.status.is_success() {
        let error = ApiError::new(endpoint, head, body);
        return Err(ResponseError::Api(error.into()));
    }
    let error = if head.is_part() {
        let why = "it is incomplete (206 with `Content-Range`)";
        DecodeError::new(Fault::Foreign, endpoint, head, body, why)
    } else if body.len() as u64 > MAX_JSON_BODY {
        let why = "it is larger than 256 MiB; set a lower `limit`";
        DecodeError::new(Fault::TooLarge, endpoint, head, body, why)
    } else if body.trim_ascii().is_empty() {
        DecodeError::new(Fault::Damaged, endpoint, head, body, "it contains no JSON")
    } else {
        match read_reply(body) {
            Ok(reply) => return Ok(reply),
            Err(why) if why.is_io() => {
                let why = "the call timed out while the reply was being parsed; allow more time";
                DecodeError::new(Fault::TooLate, endpoint, head, body, why)
            }
            Err(why) => {
                let error = ApiError::new(endpoint, head, body);
                if !error.errors().is_empty() {
                    return Err(ResponseError::Api(error.into()));
                }
                DecodeError::new(Fault::Damaged, endpoint, head, body, why)
            }
        }
    };
    Err(ResponseError::Decode(error.into()))
}
