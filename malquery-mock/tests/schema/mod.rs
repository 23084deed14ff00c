//! The official schemas of MalQuery's replies, and a check of a reply against them.

// Each test uses only a part.
#![allow(dead_code)]

use std::io::Read;

use http::{Method, Request, Response};
use malquery_proto::{Body, Transport, TransportError};
use serde_json::Value;

/// The fields of each schema and their types. `!` marks a required field, `[]` a list.
const SCHEMAS: &str = "
ExternalQueryResponse: meta! QueryMetaInfo, resources! []ExternalResource, errors []QueryError
RequestResponse: meta! RequestMetaInfo, resources! []ExternalResource, errors []QueryError
FuzzySearchResponse: meta! FuzzySearchMetaInfo, resources! []SampleMetadata, errors []QueryError
SampleMetadataResponse: meta! SamplesMetadataMetaInfo, resources! []SampleMetadata, errors! []QueryError
RateLimitsResponse: meta! RateLimitsMeta, errors! []Error

QueryMetaInfo: trace_id! string, query_time double, powered_by string, reqid string, status string, \
    pagination Paging, writes Writes
RequestMetaInfo: trace_id! string, query_time double, powered_by string, reqid string, reqtype string, \
    status string, stats Stats, options ExternalHuntOptions, patterns []SearchParameter, \
    yara_rule string, sample string, pagination Paging, writes Writes
FuzzySearchMetaInfo: trace_id! string, query_time double, powered_by string, reqid string, \
    status string, stats Stats, pagination Paging, writes Writes
SamplesMetadataMetaInfo: trace_id! string, query_time double, powered_by string, status string, \
    pagination Paging, writes Writes
RateLimitsMeta: days_left! int32, download_count! int32, download_limit! int32, hunt_count! int32, \
    hunt_limit! int32, monitor_count! int32, monitor_limit! int32, refresh_time! string, \
    download_counts []UserRequestCount, hunt_counts []UserRequestCount

ExternalResource: samples! []SampleMetadata, sha256 string, sha1 string, md5 string, filesize int32, \
    filetype string, first_seen string, label string, label_confidence string, family string, \
    ignore_reason string, pattern string, pattern_type string, tags []string, yara_rule string, \
    yara_rules []string
SampleMetadata: sha256 string, sha1 string, md5 string, filesize int32, filetype string, \
    first_seen string, label string, family string
Stats: clean_count! int32, malware_count! int32, pua_count! int32, total_count! int32, unknown_count! int32
UserRequestCount: userid! string, counter! int32
ExternalHuntOptions: filter_filetypes []string, filter_meta []string, limit int32, max_date string, \
    max_size string, min_date string, min_size string, app string, submitted_by_customer boolean
SearchParameter: type! string, value! string
QueryError: code! int32, message! string, id string, type string
Error: code! int32, message! string, id string
Paging: limit! int32, offset! int32, total! int64
Writes: resources_affected! int32

ErrorsOnly: meta! MetaInfo, errors! []Error
MetaInfo: trace_id! string, query_time! double, powered_by string, pagination Paging, writes Writes
AccessToken: access_token! string, expires_in! int32, token_type string
";

/// The operations: method and path, the schema of a success (`""` for bytes), the schema of the
/// operation's own errors, and the statuses of these.
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

/// Returns the schema of the reply to a request, or `None` if the reply is not JSON.
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

/// Adds the errors in a value.
fn check(value: &Value, is: &str, place: &str, wrong: &mut Vec<String>) {
    let fits = match is {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "double" => value.is_number(),
        "int32" => value
            .as_i64()
            .is_some_and(|number| i32::try_from(number).is_ok()),
        "int64" => value.as_i64().is_some(),
        _ if is.starts_with("[]") => {
            for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                check(item, &is[2..], &format!("{place}/{index}"), wrong);
            }
            value.is_array()
        }
        schema => {
            let start = format!("{schema}: ");
            let fields = SCHEMAS.lines().find_map(|line| line.strip_prefix(&start));
            let fields: Vec<_> = fields.unwrap().split(", ").collect();
            let fields: Vec<_> = fields
                .iter()
                .map(|field| field.split_once(' ').unwrap())
                .collect();
            for (field, is) in &fields {
                let name = field.trim_end_matches('!');
                match value.get(name) {
                    Some(value) => check(value, is, &format!("{place}/{name}"), wrong),
                    None if *field != name => wrong.push(format!("{place}/{name} is missing")),
                    None => {}
                }
            }
            for name in value
                .as_object()
                .into_iter()
                .flat_map(|object| object.keys())
            {
                if !fields
                    .iter()
                    .any(|(field, _)| field.trim_end_matches('!') == name)
                {
                    wrong.push(format!("{place}/{name} is not in {schema}"));
                }
            }
            value.is_object()
        }
    };
    if !fits {
        wrong.push(format!("{place} is {value}, not {is}"));
    }
}

/// Returns the errors in a body, according to the schema of the reply.
pub(crate) fn wrong(method: &Method, path: &str, status: u16, body: &[u8]) -> Vec<String> {
    let Some(schema) = schema(method, path, status) else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    match serde_json::from_slice(body) {
        Ok(value) => check(&value, schema, "", &mut wrong),
        Err(error) => wrong.push(error.to_string()),
    }
    wrong
}

/// Returns whether a body fits the schema of some reply with this status.
pub(crate) fn fits_any(status: u16, body: &[u8]) -> bool {
    let value = serde_json::from_slice(body).unwrap_or_default();
    OPERATIONS.iter().any(|(line, ..)| {
        let (method, path) = line.split_once(' ').unwrap();
        let schema = schema(&method.parse().unwrap(), path, status);
        let mut wrong = Vec::new();
        check(&value, schema.unwrap_or("ErrorsOnly"), "", &mut wrong);
        wrong.is_empty()
    })
}

/// Checks a reply and returns it.
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
        // Samples and archives are not checked.
        if schema(&method, uri.path(), response.status().as_u16()).is_none() {
            return Ok(response);
        }
        Ok(checked(&method, uri.path(), response).map(Body::from))
    }
}
