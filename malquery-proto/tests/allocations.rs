//! Counts allocations. Unlike times, these counts do not depend on the load of the machine, so a
//! test can check them.
//!
//! The counter covers only this thread, and counts each time that a list grows. The limits are the
//! measured counts, which are the same for debug and release builds. Fewer allocations are not a
//! failure. If the count depends on how the standard library grows lists, the limit has some room.

use std::hint::black_box;
use std::io::{self, Read};

use allocation_counter::{AllocationInfo, measure};
use http::{HeaderMap, StatusCode};
use malquery_proto::client::{Body, Client, Clock, Transport, TransportError};
use malquery_proto::credentials::BearerToken;
use malquery_proto::flow::Auth;
use malquery_proto::operation::{JsonOperation, Operation};
use malquery_proto::operations::{
    ExactSearch, FuzzySearch, GetDownload, GetMetadata, GetQuotas, GetRequest, GetSamples, Hunt,
    SamplesMultidownload,
};
use malquery_proto::reply::ResponseHead;
use malquery_proto::stream::StreamCheck;
use malquery_proto::types::{FileType, MetaField, Pattern, Sample, SearchOptions, Sha256};
use malquery_proto::{BaseUrl, Cloud, Timestamp};

fn counted(run: impl FnOnce()) -> AllocationInfo {
    let info = measure(run);
    assert_eq!(
        (info.count_current, info.bytes_current),
        (0, 0),
        "all memory was given back"
    );
    info
}

fn token() -> BearerToken {
    BearerToken::new("a-token").unwrap()
}

fn samples(count: u8) -> impl Iterator<Item = Sha256> {
    (0..count).map(|number| Sha256::from_bytes([number; 32]))
}

fn options() -> SearchOptions {
    SearchOptions::new()
        .limit(100)
        .filter_meta([MetaField::Sha256, MetaField::Label])
        .filter_filetypes([FileType::PE32, FileType::PE64])
        .min_date("2024/01/01".parse().unwrap())
        .max_size("8mb".parse().unwrap())
}

const META: &str = r#"{"query_time":91234567,"powered_by":"malquery-api","trace_id":"t","reqid":"r","reqtype":"hunt","status":"done"}"#;

fn result(number: usize, rest: &str) -> String {
    format!(
        r#"{{"sha256":"{number:064x}","sha1":"{number:040x}","md5":"{number:032x}","filesize":{number},"filetype":"PE32","first_seen":"2020/06/09","label":"malware","family":"Emotet"{rest}}}"#
    )
}

/// Returns a reply with this number of results, and with unknown fields if `rest` is set.
fn reply(results: usize, rest: &str) -> Vec<u8> {
    let results: Vec<_> = (0..results).map(|number| result(number, rest)).collect();
    format!(
        r#"{{"meta":{META},"resources":[{}],"errors":[]}}"#,
        results.join(",")
    )
    .into_bytes()
}

#[test]
fn requests_take_a_handful() {
    fn build<O: Operation>(operation: &O) -> u64 {
        let (base, token) = (BaseUrl::from(Cloud::Us1), token());
        counted(|| drop(black_box(operation.request(&base, &token).unwrap()))).count_total
    }
    let patterns = || {
        [
            Pattern::hex("8948208b48").unwrap(),
            Pattern::wide("powershell").unwrap(),
        ]
    };
    let id = || "3c9d5b1e-4a2f-6ea1-5f4f-0123456789ab".parse().unwrap();
    for (what, bound, count) in [
        ("quotas", 10, build(&GetQuotas)),
        (
            "fuzzy search",
            11,
            build(&FuzzySearch::new(patterns()).limit(10)),
        ),
        (
            "exact search",
            12,
            build(&ExactSearch::new(patterns()).options(options())),
        ),
        (
            "hunt",
            12,
            build(&Hunt::new("rule a { condition: true }").options(options())),
        ),
        ("request", 11, build(&GetRequest::new(id()))),
        ("metadata", 11, build(&GetMetadata::new(samples(1)))),
        // One allocation for each id, and those of the growing URL.
        (
            "metadata of 100",
            116,
            build(&GetMetadata::new(samples(100))),
        ),
        (
            "download",
            11,
            build(&GetDownload::new(Sha256::from_bytes([7; 32]))),
        ),
        ("samples", 11, build(&GetSamples::new(id()))),
        (
            "multi-download of 100",
            17,
            build(&SamplesMultidownload::new(samples(100))),
        ),
    ] {
        assert!(
            count <= bound,
            "{what}: {count} allocations, not {bound} at the most"
        );
    }
}

fn read(body: &[u8]) -> AllocationInfo {
    let headers = HeaderMap::new();
    let head = ResponseHead {
        status: StatusCode::OK,
        headers: &headers,
    };
    let operation = GetRequest::new("r".parse().unwrap());
    counted(|| drop(black_box(operation.response(head, body).unwrap())))
}

#[test]
fn a_result_takes_one_allocation() {
    // The one allocation is for the family, the only string field.
    for (results, bound) in [(0, 7), (10, 19), (1_000, 1_000 + 20), (10_000, 10_000 + 25)] {
        let count = read(&reply(results, "")).count_total;
        assert!(
            count <= bound,
            "{results} results: {count} allocations, not {bound} at the most"
        );
    }
    // Unknown fields take three more allocations: a list, its box, and the name.
    let count = read(&reply(1_000, r#","new":1"#)).count_total;
    assert!(count <= 4 * 1_000 + 20, "{count}");
    // A growing list doubles its size, so the old and the new buffer together need three times the
    // old size.
    let bytes = read(&reply(10_000, "")).bytes_max;
    assert!(
        bytes <= 10_000 * (3 * size_of::<Sample>() as u64 + 8),
        "{bytes}"
    );
}

#[test]
fn a_chunk_of_a_download_takes_none() {
    let chunk = [7; 64 * 1024];
    let mut check = StreamCheck::new()
        .expect_length(100 * 64 * 1024)
        .cap(1 << 30);
    let info = measure(|| (0..100).for_each(|_| check.update(black_box(&chunk)).unwrap()));
    assert_eq!(info.count_total, 0);
    // The check keeps the end of an archive, in a buffer that stops growing after 128 KiB.
    let mut check = StreamCheck::new().expect_zip();
    check.update(b"PK\x03\x04").unwrap();
    (0..200).for_each(|_| check.update(&chunk[..1000]).unwrap());
    let info = measure(|| (0..1000).for_each(|_| check.update(black_box(&chunk[..1000])).unwrap()));
    assert_eq!(info.count_total, 0);

    let sha256 = Sha256::from_bytes([0; 32]);
    let client = Client::new(Large, Still, Auth::with_token(Cloud::Us1, token()));
    let mut download = client.download(sha256).unwrap().output;
    let mut buffer = [0; 1024];
    let info = measure(|| {
        for _ in 0..10_000 {
            assert_eq!(download.read(&mut buffer).unwrap(), 1024);
        }
    });
    assert_eq!(info.count_total, 0);
}

/// A transport that returns a body of 10,000 KiB.
struct Large;

impl Transport for Large {
    fn send(&self, _: http::Request<Vec<u8>>) -> Result<http::Response<Body>, TransportError> {
        let body = io::repeat(b'a').take(10_000 * 1024);
        Ok(http::Response::new(Body::new(body)))
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000)
    }

    fn sleep_until(&self, _: Timestamp) {}
}
