//! The traits of an operation.

use http::{StatusCode, header};
use serde::de::IgnoredAny;

use crate::cloud::BaseUrl;
use crate::credentials::BearerToken;
use crate::endpoint::{Cost, Endpoint};
use crate::error::{ApiError, DecodeError, ResponseError};
use crate::reply::{Reply, ResponseHead};
use crate::request::{BuildError, RequestParts};
use crate::stream::StreamCheck;
use crate::types::lenient::Item;
use crate::types::read::read_reply;
use crate::types::{Envelope, ReplyMeta};

/// The largest body read as an error, in bytes.
pub const MAX_ERROR_BODY: u64 = 64 * 1024;

/// The largest JSON reply that is read, in bytes. 100,000 results take about 30 MB.
pub const MAX_JSON_BODY: u64 = 256 * 1024 * 1024;
/// An operation of the API: a value that makes a request.
///
/// The nine operations of MalQuery are in [`operations`](crate::operations).
///
/// ```
/// use malquery_proto::request::BuildError;
/// use malquery_proto::endpoint::Endpoint;
/// use malquery_proto::operation::{JsonOperation, Operation};
/// use malquery_proto::request::RequestParts;
/// use malquery_proto::types::{Json, PlainMeta};
///
/// /// An operation that this crate does not have. A client calls it like any other.
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
    /// The method, path, scope and other facts.
    const ENDPOINT: Endpoint;

    /// Writes the query or the body.
    ///
    /// # Errors
    /// Refuses a value that the service would refuse, or that cannot find anything.
    fn encode(&self, out: &mut RequestParts) -> Result<(), BuildError>;

    /// Returns the cost in monthly quotas, as far as it is known: nothing unless the operation says
    /// otherwise.
    fn cost(&self) -> Cost {
        Cost::default()
    }

    /// Returns the request, ready to send.
    ///
    /// # Errors
    /// As [`Operation::encode`]; also for a URL of [`MAX_URL`](crate::request::MAX_URL) bytes or
    /// more.
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

    /// Reads an error reply. Give it at least the first [`MAX_ERROR_BODY`] bytes of the body.
    fn error(&self, head: ResponseHead<'_>, body: &[u8]) -> ApiError {
        ApiError::new(&Self::ENDPOINT, head, body)
    }
}

/// Returns the request without a token, so that it can be refused before a token is requested.
pub(crate) fn unsigned<O: Operation + ?Sized>(
    operation: &O,
    base: &BaseUrl,
) -> Result<http::Request<Vec<u8>>, BuildError> {
    let mut parts = RequestParts::new(base, &O::ENDPOINT);
    operation.encode(&mut parts)?;
    parts.finish()
}

/// An operation that answers with a JSON document.
pub trait JsonOperation: Operation {
    /// The type of `meta`: [`PlainMeta`], or another type in [`types`](crate::types) whose name
    /// ends in `Meta`. Other crates cannot add types.
    ///
    /// [`PlainMeta`]: crate::types::PlainMeta
    type Meta: ReplyMeta;
    /// The type of a result: a [`Sample`](crate::types::Sample), or any
    /// [`Json`](crate::types::Json). Other crates cannot add types.
    type Resource: Item;

    /// Refuses a reply that belongs to another request, with the reason.
    #[doc(hidden)]
    fn accept(&self, _: &Self::Meta) -> Result<(), String> {
        Ok(())
    }

    /// Reads the reply.
    ///
    /// # Errors
    /// [`ResponseError::Api`] for any status other than 2xx, and for a body that holds errors and
    /// no result; [`ResponseError::Decode`] for a body that is not the expected JSON. Errors beside
    /// a result, which may be empty, stay in the envelope.
    fn response(
        &self,
        head: ResponseHead<'_>,
        body: &[u8],
    ) -> Result<JsonReply<Self>, ResponseError> {
        let output: Envelope<Self::Meta, Self::Resource> = read_json(&Self::ENDPOINT, head, body)?;
        let refuse = |why: &str| {
            let error = DecodeError::new(&Self::ENDPOINT, head, body, why);
            Err(ResponseError::Decode(error.into()))
        };
        // A connection may hold the reply to another request, such as a token.
        if output.resources.is_empty() && output.errors.is_empty() && !has_member(body) {
            return refuse("it has no member of a reply: `meta`, `resources` or `errors`");
        }
        if let Err(why) = self.accept(&output.meta) {
            return refuse(&why);
        }
        let trace_id = output.meta.trace_id().map(Into::into);
        Ok(Reply::new(head, trace_id, output))
    }
}

/// Whether a document has one of the members that every reply has.
fn has_member(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Members {
        meta: Option<IgnoredAny>,
        resources: Option<IgnoredAny>,
        errors: Option<IgnoredAny>,
    }

    read_reply::<Members>(body).is_ok_and(|members| {
        members.meta.is_some() || members.resources.is_some() || members.errors.is_some()
    })
}

/// The reply to a [`JsonOperation`].
pub type JsonReply<O> = Reply<Envelope<<O as JsonOperation>::Meta, <O as JsonOperation>::Resource>>;

/// An operation that answers with bytes: a sample, or an archive of samples.
pub trait StreamOperation: Operation {
    /// What the body must satisfy, given the head of a successful reply.
    fn check(&self, head: ResponseHead<'_>) -> StreamCheck;

    /// Reads the head of a reply. `None` means that no file follows: read the body and give both to
    /// [`Operation::error`]. The status alone decides, since a sample may look like anything, even
    /// like an error.
    fn response(&self, head: ResponseHead<'_>) -> Option<Reply<StreamCheck>> {
        has_file(head.status).then(|| Reply::new(head, None, self.check(head)))
    }
}

/// Whether a whole file follows this status: any 2xx, except those for no content and for a part.
pub(crate) fn has_file(status: StatusCode) -> bool {
    status.is_success() && !matches!(status.as_u16(), 202 | 204..=206)
}

/// Reads a JSON document of type `T` from a reply.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(
    meta: &Endpoint,
    head: ResponseHead<'_>,
    body: &[u8],
) -> Result<T, ResponseError> {
    if !head.status.is_success() {
        return Err(ResponseError::Api(Box::new(ApiError::new(
            meta, head, body,
        ))));
    }
    if body.len() as u64 > MAX_JSON_BODY {
        return Err(ResponseError::Decode(Box::new(DecodeError::too_large(
            meta, head, body,
        ))));
    }
    read_reply(body).map_err(|why| {
        let error = ApiError::new(meta, head, body);
        if body.trim_ascii().is_empty() {
            let error = DecodeError::new(meta, head, body, "it is empty");
            ResponseError::Decode(Box::new(error))
        } else if error.errors().is_empty() {
            ResponseError::Decode(Box::new(DecodeError::new(meta, head, body, why)))
        } else {
            ResponseError::Api(Box::new(error))
        }
    })
}
