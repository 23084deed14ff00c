use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use malquery_proto::Timestamp;
use malquery_proto::credentials::Credentials;
use malquery_proto::error::{ApiErrorKind, ResponseError};
use malquery_proto::oauth2::GetToken;
use malquery_proto::operation::{JsonOperation, StreamOperation};
use malquery_proto::operations::{GetDownload, GetQuotas, GetSamples, Hunt};
use malquery_proto::reply::ResponseHead;
use malquery_proto::types::Sha256;

use super::input::{Input, assert_harmless};

/// Any status, headers and body must give a result or an error with a message. The headers are
/// lines as in HTTP, up to an empty line.
pub fn errors(data: &[u8]) {
    let mut input = Input(data);
    let operation = input.byte() % 5;
    let now = Timestamp::from_millis(if input.bit() {
        1_700_000_000_000
    } else {
        u64::MAX
    });
    let status = 100 + (u16::from(input.byte()) | u16::from(input.byte()) << 8) % 900;
    let status = StatusCode::from_u16(status).expect("from 100 to 999");
    let (lines, body) = match input.0.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (&input.0[..end], &input.0[end + 2..]),
        None => (input.0, &[][..]),
    };
    let headers: HeaderMap = lines
        .split(|byte| *byte == b'\n')
        .filter_map(header)
        .collect();
    let head = ResponseHead {
        status,
        headers: &headers,
    };
    if let Some(retry) = head.rate_limit().retry {
        let _ = retry.at(now);
    }
    let result = match operation {
        0 => GetQuotas.response(head, body).map(drop),
        1 => Hunt::new("rule a { condition: true }")
            .response(head, body)
            .map(drop),
        2 => {
            let credentials = Credentials::new("an-id", "a-secret");
            GetToken::new(&credentials).response(head, body).map(drop)
        }
        3 => stream(&GetDownload::new(Sha256::from_bytes([7; 32])), head, body),
        _ => stream(&GetSamples::new("r".parse().expect("an id")), head, body),
    };
    assert!(status.is_success() || result.is_err());
    let Err(error) = result else { return };
    assert_harmless(&error.to_string());
    assert_eq!(error.status(), status);
    let ResponseError::Api(error) = error else {
        assert!(status.is_success());
        return;
    };
    let _ = (
        error.retry_at(now).map(|time| time.to_string()),
        error.rate_limit(),
        error.region(),
    );
    assert_harmless(&error.hint().unwrap_or_default());
    assert!(
        error
            .body()
            .is_none_or(|body| body.chars().count() <= 2_049)
    );
    assert_eq!(error.kind() == ApiErrorKind::Partial, status.is_success());
}

fn stream<O: StreamOperation>(
    operation: &O,
    head: ResponseHead<'_>,
    body: &[u8],
) -> Result<(), ResponseError> {
    match operation.response(head) {
        Some(_) => Ok(()),
        None => Err(ResponseError::Api(operation.error(head, body).into())),
    }
}

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    Some((name, HeaderValue::from_bytes(&line[colon + 1..]).ok()?))
}
