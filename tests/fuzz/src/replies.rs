use std::borrow::Cow;
use std::fmt::Debug;

use http::{HeaderMap, StatusCode};
use malquery_proto::credentials::Credentials;
use malquery_proto::endpoint::Resend;
use malquery_proto::error::ResponseError;
use malquery_proto::oauth2::GetToken;
use malquery_proto::operation::{JsonOperation, JsonReply};
use malquery_proto::operations::{
    ExactSearch, FuzzySearch, GetMetadata, GetQuotas, GetRequest, Hunt, SamplesMultidownload,
};
use malquery_proto::reply::ResponseHead;
use malquery_proto::types::{Pattern, Sha256};
use serde_json::Value;

use super::input::{Input, assert_harmless};

/// Reads a reply without losing content, or refuses it with a message.
pub fn replies(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 8 {
        7 => token(input.0),
        choice => with_operation(choice, input.0),
    }
}

fn with_operation(choice: u8, body: &[u8]) {
    // The sample in the seeds.
    let sample: Sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        .parse()
        .expect("a hash");
    let pattern = || [Pattern::ascii("a").expect("a pattern")];
    match choice % 7 {
        0 => check(&GetQuotas, body),
        1 => check(&FuzzySearch::new(pattern()), body),
        2 => check(&GetMetadata::new([sample]), body),
        3 => check(&GetRequest::new("r".parse().expect("an id")), body),
        4 => check(&SamplesMultidownload::new([sample]), body),
        5 => check(&ExactSearch::new(pattern()), body),
        _ => check(&Hunt::new("rule a { condition: true }"), body),
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

/// Returns the text of a body without its byte order mark, and with invalid UTF-8 replaced.
fn text_of(body: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body))
}

fn check<O: JsonOperation<Meta: Debug, Resource: Debug>>(operation: &O, body: &[u8]) {
    let text = text_of(body);
    match read(operation, body) {
        Ok(reply) => {
            let mut written = serde_json::to_value(&reply.output).expect("it is written");
            let again = read(operation, written.to_string().as_bytes()).expect("it is read again");
            assert_eq!(again.output, reply.output);
            let Ok(mut received) = serde_json::from_str::<Value>(&text) else {
                // Half of a surrogate pair, or a control character, was repaired.
                let control = |c: char| c < ' ';
                assert!(text.contains(r"\u") || text.contains(control), "{text}");
                return;
            };
            if let Value::Object(members) = &mut received {
                // If there is no `meta`, an empty one is written.
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
            // Only the reply to a submission has a required field.
            if !matches!(O::ENDPOINT.resend, Resend::Billed) {
                let received = serde_json::from_str::<Value>(&text).unwrap_or_default();
                let is_reply = ["meta", "resources", "errors"]
                    .iter()
                    .any(|member| received.get(member).is_some_and(|value| !value.is_null()));
                let why = ["it is about ", "its job status is ", "it has no "];
                let error = error.to_string();
                let is_foreign = why.iter().any(|why| error.contains(why));
                assert!(!is_reply || is_foreign, "{error}");
            }
        }
    }
}

/// Converts hashes to lower case, as the library does.
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
