use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Debug;
use std::io::Read;
use std::ops::ControlFlow;

use http::{HeaderMap, StatusCode};
use malquery_proto::client::{Client, Clock, Transport};
use malquery_proto::credentials::{BearerToken, Credentials};
use malquery_proto::endpoint::Resend;
use malquery_proto::error::ResponseError;
use malquery_proto::flow::{Auth, RetryPolicy};
use malquery_proto::oauth2::GetToken;
use malquery_proto::operation::{JsonOperation, JsonReply};
use malquery_proto::operations::{
    ExactSearch, FuzzySearch, GetMetadata, GetQuotas, GetRequest, Hunt, SamplesMultidownload,
};
use malquery_proto::reply::ResponseHead;
use malquery_proto::types::{Pattern, Sha256};
use malquery_proto::{Cloud, Timestamp};
use serde_json::Value;

use super::input::{Input, assert_harmless};

/// A reply is read as a document that says what was received, or refused with a message.
pub fn replies(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 8 {
        7 => token(input.0),
        choice => with_operation(choice, input.0, Whole),
    }
}

/// A reply that is read result by result is the same as when it is read whole.
pub fn each(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let chunk = usize::from(input.byte()) + 1;
    with_operation(choice, input.0, Parts { chunk });
}

trait Check {
    fn check<O: JsonOperation<Meta: Debug, Resource: Debug>>(self, operation: &O, body: &[u8]);
}

fn with_operation(choice: u8, body: &[u8], check: impl Check) {
    let sample = Sha256::from_bytes([7; 32]);
    let pattern = || [Pattern::ascii("a").expect("a pattern")];
    match choice % 7 {
        0 => check.check(&GetQuotas, body),
        1 => check.check(&FuzzySearch::new(pattern()), body),
        2 => check.check(&GetMetadata::new([sample]), body),
        3 => check.check(&GetRequest::new("r".parse().expect("an id")), body),
        4 => check.check(&SamplesMultidownload::new([sample]), body),
        5 => check.check(&ExactSearch::new(pattern()), body),
        _ => check.check(&Hunt::new("rule a { condition: true }"), body),
    }
}

fn read<O: JsonOperation>(operation: &O, body: &[u8]) -> Result<JsonReply<O>, ResponseError> {
    let headers = HeaderMap::new();
    operation.response(
        ResponseHead {
            status: StatusCode::OK,
            headers: &headers,
        },
        body,
    )
}

/// The text of a body, as it is read: without a byte order mark, and with what is no UTF-8 replaced.
fn text_of(body: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body))
}

struct Whole;

impl Check for Whole {
    fn check<O: JsonOperation<Meta: Debug, Resource: Debug>>(self, operation: &O, body: &[u8]) {
        let text = text_of(body);
        match read(operation, body) {
            Ok(reply) => {
                let mut received: Value =
                    serde_json::from_str(&text).expect("what is read is JSON");
                let mut written = serde_json::to_value(&reply.output).expect("it is written");
                let again =
                    read(operation, written.to_string().as_bytes()).expect("it is read again");
                assert_eq!(again.output, reply.output);
                if let Value::Object(members) = &mut received {
                    // Where there is no `meta`, an empty one is written.
                    members
                        .entry("meta")
                        .or_insert_with(|| written["meta"].clone());
                }
                lower_hashes(&mut written);
                lower_hashes(&mut received);
                assert_eq!(written, received);
            }
            Err(error) => {
                assert_harmless(&error.to_string());
                // Only the reply to a submission has a field without which it is refused.
                if !matches!(O::ENDPOINT.resend, Resend::Billed) {
                    let is_object =
                        serde_json::from_str::<Value>(&text).is_ok_and(|value| value.is_object());
                    assert!(!is_object, "{error}");
                }
            }
        }
    }
}

/// A hash is written in lower case, in whatever case it was received.
fn lower_hashes(value: &mut Value) {
    match value {
        Value::Object(members) => members.iter_mut().for_each(|(name, value)| match value {
            Value::String(text) if matches!(&**name, "sha256" | "sha1" | "md5") => {
                text.make_ascii_lowercase()
            }
            value => lower_hashes(value),
        }),
        Value::Array(elements) => elements.iter_mut().for_each(lower_hashes),
        _ => {}
    }
}

/// Reading it fails where there are two.
#[derive(serde::Deserialize)]
struct OneList {
    #[serde(rename = "resources")]
    _resources: Option<serde::de::IgnoredAny>,
}

struct Parts {
    /// How many bytes arrive at a time.
    chunk: usize,
}

impl Check for Parts {
    fn check<O: JsonOperation<Meta: Debug, Resource: Debug>>(self, operation: &O, body: &[u8]) {
        let auth = Auth::with_token(Cloud::Us1, BearerToken::new("a-token").expect("a token"));
        let client = Client::new(
            Chunks {
                body,
                chunk: self.chunk,
            },
            Still,
            auth,
        )
        .retry(RetryPolicy::never());
        let mut results = Vec::new();
        let streamed = client.each(operation, |result| {
            results.push(result);
            ControlFlow::Continue(())
        });
        if serde_json::from_str::<OneList>(&text_of(body))
            .is_err_and(|error| error.to_string().contains("duplicate"))
        {
            // Of two lists the last counts, and then the results of the first are handed out already.
            return;
        }
        match (streamed, read(operation, body)) {
            (Ok(streamed), Ok(whole)) => {
                assert_eq!(streamed.meta, whole.meta);
                assert_eq!(streamed.errors, whole.errors);
                assert_eq!(results, whole.output.resources);
                assert_eq!(streamed.trace_id, whole.trace_id);
            }
            (Err(error), Err(_)) => assert_harmless(&error.to_string()),
            (streamed, whole) => panic!("{streamed:?} but {whole:?}"),
        }
    }
}

fn token(body: &[u8]) {
    let headers = HeaderMap::new();
    let credentials = Credentials::new("an-id", "a-secret");
    let reply = GetToken::new(&credentials).response(
        ResponseHead {
            status: StatusCode::CREATED,
            headers: &headers,
        },
        body,
    );
    if let Err(error) = reply {
        assert_harmless(&error.to_string());
    }
}

/// Answers with this body, so many bytes at a time.
struct Chunks<'a> {
    body: &'a [u8],
    chunk: usize,
}

impl<'a> Transport for Chunks<'a> {
    type Body = Slowly<'a>;
    type Error = Infallible;

    fn execute(&self, _: http::Request<Vec<u8>>) -> Result<http::Response<Slowly<'a>>, Infallible> {
        Ok(http::Response::new(Slowly(self.body, self.chunk)))
    }
}

struct Slowly<'a>(&'a [u8], usize);

impl Read for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = self.1.min(buffer.len());
        self.0.read(&mut buffer[..most])
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000)
    }

    fn sleep_until(&self, _: Timestamp) {}
}
