//! The official schemas of MalQuery's replies, and a check of a reply against them.

// Each test uses a part.
#![allow(dead_code)]

use std::io::Read;

use http::{Method, Request, Response};
use malquery_proto::{Body, Transport, TransportError};
use serde_json::Value;

/// The type of a field.
#[derive(Clone, Copy)]
enum Is {
    Text,
    Texts,
    Flag,
    Double,
    Int32,
    Int64,
    One(&'static str),
    Many(&'static str),
}
use Is::{Double, Flag, Int32, Int64, Many, One, Text, Texts};

/// The fields of each schema. A name with `!` is required.
const SCHEMAS: &[(&str, &[(&str, Is)])] = &[
    (
        "ExternalQueryResponse",
        &[
            ("meta!", One("QueryMetaInfo")),
            ("resources!", Many("ExternalResource")),
            ("errors", Many("QueryError")),
        ],
    ),
    (
        "RequestResponse",
        &[
            ("meta!", One("RequestMetaInfo")),
            ("resources!", Many("ExternalResource")),
            ("errors", Many("QueryError")),
        ],
    ),
    (
        "FuzzySearchResponse",
        &[
            ("meta!", One("FuzzySearchMetaInfo")),
            ("resources!", Many("SampleMetadata")),
            ("errors", Many("QueryError")),
        ],
    ),
    (
        "SampleMetadataResponse",
        &[
            ("meta!", One("SamplesMetadataMetaInfo")),
            ("resources!", Many("SampleMetadata")),
            ("errors!", Many("QueryError")),
        ],
    ),
    (
        "RateLimitsResponse",
        &[("meta!", One("RateLimitsMeta")), ("errors!", Many("Error"))],
    ),
    (
        "QueryMetaInfo",
        &[
            ("trace_id!", Text),
            ("query_time", Double),
            ("powered_by", Text),
            ("reqid", Text),
            ("status", Text),
            ("pagination", One("Paging")),
            ("writes", One("Writes")),
        ],
    ),
    (
        "RequestMetaInfo",
        &[
            ("trace_id!", Text),
            ("query_time", Double),
            ("powered_by", Text),
            ("reqid", Text),
            ("reqtype", Text),
            ("status", Text),
            ("stats", One("Stats")),
            ("options", One("ExternalHuntOptions")),
            ("patterns", Many("SearchParameter")),
            ("yara_rule", Text),
            ("sample", Text),
            ("pagination", One("Paging")),
            ("writes", One("Writes")),
        ],
    ),
    (
        "FuzzySearchMetaInfo",
        &[
            ("trace_id!", Text),
            ("query_time", Double),
            ("powered_by", Text),
            ("reqid", Text),
            ("status", Text),
            ("stats", One("Stats")),
            ("pagination", One("Paging")),
            ("writes", One("Writes")),
        ],
    ),
    (
        "SamplesMetadataMetaInfo",
        &[
            ("trace_id!", Text),
            ("query_time", Double),
            ("powered_by", Text),
            ("status", Text),
            ("pagination", One("Paging")),
            ("writes", One("Writes")),
        ],
    ),
    (
        "RateLimitsMeta",
        &[
            ("days_left!", Int32),
            ("download_count!", Int32),
            ("download_limit!", Int32),
            ("hunt_count!", Int32),
            ("hunt_limit!", Int32),
            ("monitor_count!", Int32),
            ("monitor_limit!", Int32),
            ("refresh_time!", Text),
            ("download_counts", Many("UserRequestCount")),
            ("hunt_counts", Many("UserRequestCount")),
        ],
    ),
    (
        "UserRequestCount",
        &[("userid!", Text), ("counter!", Int32)],
    ),
    (
        "Stats",
        &[
            ("clean_count!", Int32),
            ("malware_count!", Int32),
            ("pua_count!", Int32),
            ("total_count!", Int32),
            ("unknown_count!", Int32),
        ],
    ),
    (
        "ExternalResource",
        &[
            ("samples!", Many("SampleMetadata")),
            ("sha256", Text),
            ("sha1", Text),
            ("md5", Text),
            ("filesize", Int32),
            ("filetype", Text),
            ("first_seen", Text),
            ("label", Text),
            ("label_confidence", Text),
            ("family", Text),
            ("ignore_reason", Text),
            ("pattern", Text),
            ("pattern_type", Text),
            ("tags", Texts),
            ("yara_rule", Text),
            ("yara_rules", Texts),
        ],
    ),
    (
        "SampleMetadata",
        &[
            ("sha256", Text),
            ("sha1", Text),
            ("md5", Text),
            ("filesize", Int32),
            ("filetype", Text),
            ("first_seen", Text),
            ("label", Text),
            ("family", Text),
        ],
    ),
    (
        "ExternalHuntOptions",
        &[
            ("filter_filetypes", Texts),
            ("filter_meta", Texts),
            ("limit", Int32),
            ("max_date", Text),
            ("max_size", Text),
            ("min_date", Text),
            ("min_size", Text),
            // Since March 2026.
            ("app", Text),
            ("submitted_by_customer", Flag),
        ],
    ),
    ("SearchParameter", &[("type!", Text), ("value!", Text)]),
    (
        "QueryError",
        &[
            ("code!", Int32),
            ("message!", Text),
            ("id", Text),
            ("type", Text),
        ],
    ),
    (
        "Error",
        &[("code!", Int32), ("message!", Text), ("id", Text)],
    ),
    (
        "Paging",
        &[("limit!", Int32), ("offset!", Int32), ("total!", Int64)],
    ),
    ("Writes", &[("resources_affected!", Int32)]),
    // What every API of the platform has.
    (
        "ErrorsOnly",
        &[("meta!", One("MetaInfo")), ("errors!", Many("Error"))],
    ),
    (
        "MetaInfo",
        &[
            ("trace_id!", Text),
            ("query_time!", Double),
            ("powered_by", Text),
            ("pagination", One("Paging")),
            ("writes", One("Writes")),
        ],
    ),
    (
        "AccessToken",
        &[
            ("access_token!", Text),
            ("expires_in!", Int32),
            ("token_type", Text),
        ],
    ),
];

/// The operations: method and path, the schema of a success (`""` for bytes), the schema of the refusals of the
/// operation itself, and the statuses of these.
const OPERATIONS: &[(&str, &str, &str, &[u16])] = &[
    (
        "GET /malquery/aggregates/quotas/v1",
        "RateLimitsResponse",
        "",
        &[],
    ),
    (
        "POST /malquery/combined/fuzzy-search/v1",
        "FuzzySearchResponse",
        "FuzzySearchResponse",
        &[400, 500],
    ),
    ("GET /malquery/entities/download-files/v1", "", "", &[]),
    (
        "GET /malquery/entities/metadata/v1",
        "SampleMetadataResponse",
        "SampleMetadataResponse",
        &[400, 500],
    ),
    (
        "GET /malquery/entities/requests/v1",
        "RequestResponse",
        "RequestResponse",
        &[400, 500],
    ),
    ("GET /malquery/entities/samples-fetch/v1", "", "", &[]),
    (
        "POST /malquery/entities/samples-multidownload/v1",
        "ExternalQueryResponse",
        "ExternalQueryResponse",
        &[400, 404, 429, 500],
    ),
    (
        "POST /malquery/queries/exact-search/v1",
        "ExternalQueryResponse",
        "ExternalQueryResponse",
        &[400, 429, 500],
    ),
    (
        "POST /malquery/queries/hunt/v1",
        "ExternalQueryResponse",
        "ExternalQueryResponse",
        &[400, 429, 500],
    ),
    ("POST /oauth2/token", "AccessToken", "", &[]),
    ("POST /oauth2/revoke", "ErrorsOnly", "", &[]),
];

/// The schema of the reply to a request, or `None` if it is no JSON.
fn schema(method: &Method, path: &str, status: u16) -> Option<&'static str> {
    let line = format!("{method} {path}");
    let schema = match OPERATIONS.iter().find(|operation| operation.0 == line) {
        Some((_, success, _, _)) if status < 300 => success,
        Some((_, _, own, statuses)) if statuses.contains(&status) => own,
        // An empty reply.
        _ if method == Method::HEAD || (300..400).contains(&status) => "",
        _ => "ErrorsOnly",
    };
    Some(schema).filter(|schema| !schema.is_empty())
}

/// What is wrong with a value.
fn check(value: &Value, is: Is, place: &str, wrong: &mut Vec<String>) {
    let fits = match (is, value) {
        (Text, Value::String(_)) | (Flag, Value::Bool(_)) | (Double, Value::Number(_)) => true,
        (Int32, Value::Number(number)) => number
            .as_i64()
            .is_some_and(|number| i32::try_from(number).is_ok()),
        (Int64, Value::Number(number)) => number.as_i64().is_some(),
        (Texts, Value::Array(items)) => items.iter().all(Value::is_string),
        (Many(schema), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                check(item, One(schema), &format!("{place}/{index}"), wrong);
            }
            true
        }
        (One(name), Value::Object(object)) => {
            let (_, fields) = SCHEMAS.iter().find(|(schema, _)| *schema == name).unwrap();
            for (field, is) in *fields {
                let name = field.trim_end_matches('!');
                match object.get(name) {
                    Some(value) => check(value, *is, &format!("{place}/{name}"), wrong),
                    None if field.ends_with('!') => {
                        wrong.push(format!("{place}/{name} is missing"))
                    }
                    None => {}
                }
            }
            for name in object.keys() {
                if !fields
                    .iter()
                    .any(|(field, _)| field.trim_end_matches('!') == name)
                {
                    wrong.push(format!(
                        "{place}/{name} is not in {field}",
                        field = name_of(is)
                    ));
                }
            }
            true
        }
        _ => false,
    };
    if !fits {
        wrong.push(format!("{place} is {value}"));
    }
}

fn name_of(is: Is) -> &'static str {
    match is {
        One(name) | Many(name) => name,
        _ => "",
    }
}

/// Checks a body against the schema of the reply.
pub(crate) fn wrong(method: &Method, path: &str, status: u16, body: &[u8]) -> Vec<String> {
    let Some(schema) = schema(method, path, status) else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    match serde_json::from_slice(body) {
        Ok(value) => check(&value, One(schema), "", &mut wrong),
        Err(error) => wrong.push(error.to_string()),
    }
    wrong
}

/// Whether a body fits the schema of some reply with this status.
pub(crate) fn fits_any(status: u16, body: &[u8]) -> bool {
    let value = serde_json::from_slice(body).unwrap_or_default();
    OPERATIONS.iter().any(|(line, ..)| {
        let (method, path) = line.split_once(' ').unwrap();
        let schema = schema(&method.parse().unwrap(), path, status);
        let mut wrong = Vec::new();
        check(&value, One(schema.unwrap_or("ErrorsOnly")), "", &mut wrong);
        wrong.is_empty()
    })
}

/// Gives a reply on, after it was checked.
pub(crate) fn checked(
    method: &Method,
    path: &str,
    response: Response<impl Read>,
) -> Response<Vec<u8>> {
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes).unwrap();
    let status = head.status.as_u16();
    let wrong = wrong(method, path, status, &bytes);
    let text = String::from_utf8_lossy(&bytes);
    assert!(
        wrong.is_empty(),
        "{method} {path} {status}: {wrong:#?}\n{text}"
    );
    Response::from_parts(head, bytes)
}

/// A transport whose replies are checked.
#[derive(Clone, Debug)]
pub(crate) struct Checked<T>(pub T);

impl<T: Transport> Transport for Checked<T> {
    fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, TransportError> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let response = self.0.send(request)?;
        Ok(checked(&method, uri.path(), response).map(Body::from))
    }
}
