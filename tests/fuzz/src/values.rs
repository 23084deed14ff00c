use std::fmt::{Debug, Display};
use std::str::FromStr;

use malquery_proto::credentials::BearerToken;
use malquery_proto::operation::Operation;
use malquery_proto::operations::GetQuotas;
use malquery_proto::types::{
    Date, FileSize, FileType, JobStatus, Label, Md5, MetaField, ParseError, Pattern, PatternType,
    RequestId, RequestType, Sha1, Sha256,
};
use malquery_proto::{BaseUrl, Cloud};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::input::{Input, assert_harmless};

/// A value must be equal to the value that is parsed from its text, also in JSON.
pub fn values(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.byte();
    let Ok(text) = std::str::from_utf8(input.0) else {
        return;
    };
    match kind % 16 {
        0 => stored::<Sha256>(text),
        1 => stored::<Sha1>(text),
        2 => stored::<Md5>(text),
        3 => stored::<Date>(text),
        4 => stored::<FileSize>(text),
        5 => stored::<FileType>(text),
        6 => stored::<RequestId>(text),
        7 => drop(plain::<Cloud>(text)),
        8 => base_url(text),
        9 => stored::<JobStatus>(text),
        10 => stored::<Label>(text),
        11 => stored::<MetaField>(text),
        12 => stored::<PatternType>(text),
        13 => stored::<RequestType>(text),
        14 => token(text),
        _ => drop(plain::<Pattern>(text).map(in_json)),
    }
}

trait Value: FromStr<Err = ParseError> + Display + Debug + PartialEq {}
impl<T: FromStr<Err = ParseError> + Display + Debug + PartialEq> Value for T {}

fn plain<T: Value>(text: &str) -> Option<T> {
    match text.parse::<T>() {
        Ok(value) => {
            let written = value.to_string();
            let again: T = written.parse().expect("what is written can be read");
            assert_eq!(again, value);
            assert_eq!(again.to_string(), written);
            Some(value)
        }
        Err(error) => {
            assert_harmless(&error.to_string());
            assert!(
                error
                    .position()
                    .is_none_or(|position| position < text.len())
            );
            None
        }
    }
}

fn in_json<T: Serialize + DeserializeOwned + Debug + PartialEq>(value: T) {
    let json = serde_json::to_string(&value).expect("it is written");
    assert_eq!(serde_json::from_str::<T>(&json).expect("it is read"), value);
}

/// Checks a value that is also a string in JSON.
fn stored<T: Value + Serialize + DeserializeOwned>(text: &str) {
    match plain::<T>(text) {
        Some(value) => in_json(value),
        None => {
            let json = serde_json::to_string(text).expect("a text is JSON");
            assert!(serde_json::from_str::<T>(&json).is_err());
        }
    }
}

/// A valid base URL must give a request to its host.
fn base_url(text: &str) {
    let Some(base) = plain::<BaseUrl>(text) else {
        return;
    };
    let bearer = BearerToken::new("a-token").expect("a token");
    match GetQuotas.request(&base, &bearer) {
        Ok(request) => {
            let uri: http::Uri = base.as_str().parse().expect("it is a URI");
            assert_eq!(request.uri().authority(), uri.authority());
            assert_eq!(request.uri().scheme(), uri.scheme());
            assert!(request.uri().path().ends_with(GetQuotas::ENDPOINT.path));
        }
        Err(error) => assert!(base.as_str().len() > 7_000, "{error}"),
    }
}

/// A token must fit into a header, or be refused without being shown.
fn token(text: &str) {
    match BearerToken::new(text) {
        Ok(token) => {
            let request = GetQuotas
                .request(&Cloud::Us1.into(), &token)
                .expect("it fits");
            let header = &request.headers()["authorization"];
            assert!(header.is_sensitive());
            assert_eq!(
                header.as_bytes().strip_prefix(b"Bearer ").map(<[u8]>::len),
                Some(text.len())
            );
        }
        Err(error) => {
            let known = [
                "it is empty",
                "it must contain only visible ASCII characters",
            ];
            assert!(
                known
                    .map(|why| format!("not a bearer token: {why}"))
                    .contains(&error.to_string())
            );
        }
    }
}
